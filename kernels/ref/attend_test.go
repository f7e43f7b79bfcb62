package ref

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// Attention on codes is attention over the values the codes stand for, within
// the bounds of package quant for 8-bit queries and weights; and its error is
// typically far below them.
func TestAttendWithinBound(t *testing.T) {
	dims := []int{64, 80, 96, 128, 256}
	if testing.Short() {
		dims = []int{64, 80}
	}
	for fi, f := range allFormats {
		for di, d := range dims {
			n := 201 + 37*((fi+3*di)%7) // ragged everywhere
			c := newCache(t, f.name, f.calibrated, d, n, uint64(fi*10+di))
			for group, rows := range map[int]int{1: 2, 3: 2, 8: 1} {
				checkBound(t, c, fmt.Sprintf("%s/d%d/G%d/n%d", formatName(f.name, f.calibrated), d, group, n), c.job(group, rows, uint64(group)))
			}
		}
	}
}

func checkBound(t *testing.T, c *cache, name string, j kernels.AttnJob) {
	t.Helper()
	New(1).Attend([]kernels.AttnJob{j})
	truth, d := c.truth(&j), c.g.HeadDim
	var errors, outs []float64
	for i := range len(j.Limit) * j.Group {
		want, weights := oracle(&j, truth, i)
		bound := boundOf(&j, truth, i, weights)
		for ch, w := range want {
			e := math.Abs(float64(j.Out[i*d+ch]) - w)
			if !(e <= bound[ch]+2e-6*(1+math.Abs(w))) {
				t.Fatalf("%s: vector %d channel %d: %g, want %g within %g", name, i, ch, j.Out[i*d+ch], w, bound[ch])
			}
			errors, outs = append(errors, e), append(outs, w)
		}
	}
	typical := map[quant.Family]float64{quant.FamilyF16: 2e-6, quant.FamilyHQ: 0.02, quant.FamilyHack: 0.03, quant.FamilyHackV2: 0.12}
	if got := rms(errors) / rms(outs); got > typical[c.g.Format.Family] {
		t.Errorf("%s: error %.4f of the output's rms", name, got)
	}
}

// boundOf is quant's bound per channel of query vector i.
func boundOf(j *kernels.AttnJob, truth []tileTruth, i int, weights [][]float64) []float64 {
	d := j.Geometry.HeadDim
	reach, weightError := make([]float64, d), make([]float64, d)
	var scoreError float64
	for ti := range truth {
		t := &truth[ti]
		for tok := t.Lo; tok < t.end(j, i); tok++ {
			if t.KCoded {
				scoreError = max(scoreError, queryError(j, t, j.Q[i*d:(i+1)*d], tok)*float64(j.Scale))
			}
			for ch := range reach {
				reach[ch] = max(reach[ch], math.Abs(t.v[tok*d+ch]))
			}
		}
		if t.VCoded {
			for ch := range weightError {
				weightError[ch] += tileError(j, t, weights[ti], ch, t.end(j, i))
			}
		}
	}
	for ch := range reach {
		reach[ch] = quant.OutputBound(scoreError, weightError[ch], reach[ch])
	}
	return reach
}

func queryError(j *kernels.AttnJob, t *tileTruth, q []float32, tok int) float64 {
	g, d := j.Geometry, j.Geometry.HeadDim
	if g.Format.Family == quant.FamilyHQ {
		var top, norm float64
		for ch, x := range q {
			top, norm = max(top, math.Abs(float64(x))), norm+math.Abs(t.k[tok*d+ch])
		}
		return g.Format.QueryBound(top, norm)
	}
	l, page := &g.Hack[quant.HalfK], g.CodedHead(t.Coded, j.Head)
	var sum float64
	for p := range l.Parts {
		from, to := l.Part(p, d)
		lo, hi, norm := math.Inf(1), math.Inf(-1), 0.0
		for ch := from; ch < to; ch++ {
			x, k := float64(q[ch]), t.k[tok*d+ch]
			if g.Format.Family == quant.FamilyHackV2 {
				scale, zero := dequant.Params(g, page, quant.HalfK, tok, ch, g.Format.Bits)
				x, k = x*scale, (k-zero)/scale
			}
			lo, hi, norm = min(lo, x), max(hi, x), norm+math.Abs(k)
		}
		sum += g.Format.QueryBound(hi-lo, norm)
	}
	return sum
}

// tileError is the bound of Σ w·v of one tile in one channel.
func tileError(j *kernels.AttnJob, t *tileTruth, w []float64, ch, end int) float64 {
	g := j.Geometry
	width := g.Format.PageTokens
	if g.Format.Family != quant.FamilyHQ {
		width = g.Format.Partition
	}
	var sum float64
	for first := t.Lo / width * width; first < end; first += width {
		lo, hi, norm := math.Inf(1), 0.0, 0.0
		for tok := first; tok < first+width; tok++ {
			if tok < t.Lo || tok >= end {
				lo = 0
				continue
			}
			fold, v := folded(j, t, tok, ch)
			lo, hi, norm = min(lo, w[tok]*fold), max(hi, w[tok]*fold), norm+math.Abs(v)
		}
		if g.Format.Family == quant.FamilyHQ {
			lo = 0
		}
		sum += g.Format.WeightBound(hi-lo, norm)
	}
	return sum
}

// folded is what a token's weight is multiplied by before it is quantised, and
// what the quantised weight is multiplied with.
func folded(j *kernels.AttnJob, t *tileTruth, tok, ch int) (fold, v float64) {
	g := j.Geometry
	v = t.v[tok*g.HeadDim+ch]
	page := g.CodedHead(t.Coded, j.Head)
	switch g.Format.Family {
	case quant.FamilyHack:
		return 1, v
	case quant.FamilyHackV2:
		scale, zero := dequant.Params(g, page, quant.HalfV, tok, ch, g.Format.Bits)
		return scale, (v - zero) / scale
	}
	b := t.vBits[tok*g.HeadDim+ch]
	scale, zero := dequant.Params(g, page, quant.HalfV, tok, ch, b)
	if scale == 0 {
		return 0, 0
	}
	centre := zero + scale*float64(int(1)<<b-1)/2
	if b == 4 {
		scale *= 4
	}
	return scale, (v - centre) / scale
}

// A row's result depends on its own tokens only, to the last bit, however rows
// are grouped and over however many cores they run; and it does not depend on
// the order of the tiles but for rounding.
func TestAttendInvariance(t *testing.T) {
	for fi, f := range allFormats {
		c := newCache(t, f.name, f.calibrated, 64, 333, uint64(fi))
		name, d := formatName(f.name, f.calibrated), 64
		whole := c.job(3, 45, 9)
		New(2).Attend([]kernels.AttnJob{whole})
		for _, row := range []int{0, 1, 7, 30, 44} {
			one := whole
			one.Q, one.Limit = whole.Q[row*3*d:(row+1)*3*d], whole.Limit[row:row+1]
			one.Out = make([]float32, 3*d)
			New(1).Attend([]kernels.AttnJob{one})
			if !slices.Equal(one.Out, whole.Out[row*3*d:(row+1)*3*d]) {
				t.Errorf("%s: row %d alone differs from row %d of 45", name, row, row)
			}
			one.Tiles = nil
			for _, tile := range whole.Tiles { // as if the sequence ended at this row
				if tile.Hi = min(tile.Hi, one.Limit[0]-tile.First); tile.Hi > tile.Lo {
					one.Tiles = append(one.Tiles, tile)
				}
			}
			again := slices.Clone(one.Out)
			New(1).Attend([]kernels.AttnJob{one})
			if !slices.Equal(one.Out, again) {
				t.Errorf("%s: row %d differs where tiles end with it", name, row)
			}
		}
		shuffled := whole
		shuffled.Tiles, shuffled.Out = slices.Clone(whole.Tiles), make([]float32, len(whole.Out))
		r := rand.New(rand.NewPCG(5, 5))
		r.Shuffle(len(shuffled.Tiles), func(a, b int) {
			shuffled.Tiles[a], shuffled.Tiles[b] = shuffled.Tiles[b], shuffled.Tiles[a]
		})
		New(1).Attend([]kernels.AttnJob{shuffled})
		for i, x := range shuffled.Out {
			if math.Abs(float64(x-whole.Out[i])) > 2e-6 {
				t.Fatalf("%s: output %d is %g with tiles shuffled, %g in order", name, i, x, whole.Out[i])
			}
		}
	}
}

// A row that sees nothing gets zeros, and leaves its neighbours alone.
func TestAttendEmptyRows(t *testing.T) {
	for _, f := range allFormats {
		c := newCache(t, f.name, f.calibrated, 64, 260, 3)
		j := c.job(1, 4, 4)
		New(1).Attend([]kernels.AttnJob{j})
		want := slices.Clone(j.Out)
		j.Limit[0], j.Limit[2] = 0, 0
		New(1).Attend([]kernels.AttnJob{j})
		clear(want[:64])
		clear(want[128:192])
		if !slices.Equal(j.Out, want) {
			t.Errorf("%s: rows without tokens are not zero or change others", f.name)
		}
	}
}

// States of disjoint tokens merge to the same attention in any order.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		parts := make([]State, 5)
		for i := range parts {
			parts[i] = State{Top: float32(r.NormFloat64() * 30), Sum: r.Float32()*10 + 1, Acc: make([]float32, 8)}
			for c := range parts[i].Acc {
				parts[i].Acc[c] = float32(r.NormFloat64()) * parts[i].Sum
			}
		}
		parts[3].Sum = 0 // empty: whatever Top and Acc say
		merged := func(order []int) []float32 {
			s := State{Top: float32(math.Inf(-1)), Acc: make([]float32, 8)}
			for _, i := range order {
				s.Merge(parts[i])
			}
			out := make([]float32, 8)
			s.Finish(out)
			return out
		}
		want, got := merged([]int{0, 1, 2, 3, 4}), merged([]int{3, 4, 2, 0, 1})
		for c := range want {
			if math.Abs(float64(want[c]-got[c])) > 1e-5 {
				t.Fatalf("channel %d: %g in one order, %g in another", c, want[c], got[c])
			}
		}
	}
}

func TestExpNeg(t *testing.T) {
	f := func(x float32) {
		t.Helper()
		want := math.Exp(float64(x))
		if got := float64(expNeg(x)); math.Abs(got-want) > 2.5e-7*want {
			t.Errorf("e^%g = %g, want %g", x, got, want)
		}
	}
	for x := float32(0); x > -87; x -= 0.00137 {
		f(x)
	}
	if got := expNeg(float32(math.Inf(-1))); got != 0 {
		t.Errorf("e^-Inf = %g", got)
	}
	if got := expNeg(-1000); got != 0 {
		t.Errorf("e^-1000 = %g", got)
	}
	if got := expNeg(float32(math.NaN())); got == got {
		t.Errorf("e^NaN = %g: a NaN must not be hidden", got)
	}
}
