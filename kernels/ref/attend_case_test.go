package ref

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// cache is one layer and one KV head of a sequence of random tokens, in both
// forms.
type cache struct {
	g            *quant.Geometry
	n            int
	exact, coded [][]byte
}

// newCache fills n tokens of Gaussian K and V with some channels larger and off
// centre, as models have them.
func newCache(t testing.TB, name string, calibrated bool, d, n int, seed uint64) *cache {
	t.Helper()
	f, err := quant.ParseFormat(name, calibrated)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 1, 1, d)
	if err != nil {
		t.Fatal(err)
	}
	c := &cache{g: g, n: n}
	r := rand.New(rand.NewPCG(seed, 1))
	k, v := make([]float32, d), make([]float32, d)
	last := 0 // tokens coded so far
	for tok := range n {
		page, at := tok/f.PageTokens, tok%f.PageTokens
		if at == 0 {
			c.exact = append(c.exact, make([]byte, g.ExactBytes()))
			c.coded = append(c.coded, make([]byte, g.CodedBytes()))
		}
		for i := range k {
			gain := 1 + float64(i%7)/4
			k[i] = float32(gain * (r.NormFloat64() + 0.3*float64(i%3-1)))
			v[i] = float32(r.NormFloat64())
		}
		g.PutExact(c.exact[page], at, k, v)
		if r.IntN(20) > 0 && at+1 < f.PageTokens && tok+1 < n {
			continue // chunks of any size
		}
		lo := max(last, page*f.PageTokens)
		last = tok + 1
		g.Encode(quant.EncodeArgs{
			Exact: c.exact[page], Coded: c.coded[page], First: page * f.PageTokens, Lo: lo % f.PageTokens, Hi: at + 1,
			Important: func(head, half int) uint64 { return 0x0102_0408_8000_0003 },
		})
	}
	return c
}

// tiles says how a query with n tokens reads them.
func (c *cache) tiles(n int) []kernels.Tile {
	f := c.g.Format
	fromK, fromV := f.ExactFrom(n)
	var tiles []kernels.Tile
	for lo := 0; lo < n; {
		page := lo / f.PageTokens
		first := page * f.PageTokens
		hi := min(first+f.PageTokens, n)
		for _, edge := range []int{f.Sinks, fromK, fromV} {
			if edge > lo {
				hi = min(hi, edge)
			}
		}
		coded := f.Coded() && lo >= f.Sinks
		tiles = append(tiles, kernels.Tile{
			First: first, Lo: lo - first, Hi: hi - first, Exact: c.exact[page], Coded: c.coded[page],
			KCoded: coded && lo < fromK, VCoded: coded && lo < fromV,
		})
		lo = hi
	}
	return tiles
}

// job is the attention of the last rows of the sequence, all reading as the
// last one does.
func (c *cache) job(group, rows int, seed uint64) kernels.AttnJob {
	r := rand.New(rand.NewPCG(seed, 2))
	d := c.g.HeadDim
	j := kernels.AttnJob{
		Geometry: c.g, Group: group, Scale: float32(1 / math.Sqrt(float64(d))), Tiles: c.tiles(c.n),
		Q: make([]float32, rows*group*d), Out: make([]float32, rows*group*d),
	}
	for i := range j.Q {
		j.Q[i] = float32(r.NormFloat64())
	}
	for i := range rows {
		j.Limit = append(j.Limit, c.n-rows+i+1)
	}
	return j
}

// read is what a tile's tokens stand for in one half, [page token][channel].
func (c *cache) read(t *kernels.Tile, half int) []float64 {
	if half == quant.HalfK && t.KCoded || half == quant.HalfV && t.VCoded {
		return dequant.Half(c.g, t.Coded, 0, half)
	}
	return dequant.Exact(c.g, t.Exact, 0, half)
}

// tileTruth is what one tile's tokens stand for.
type tileTruth struct {
	*kernels.Tile
	k, v  []float64
	vBits []int // of the codes of V, nil where exact
	codes []int // of K, nil where exact
}

func (c *cache) truth(j *kernels.AttnJob) []tileTruth {
	truth := make([]tileTruth, len(j.Tiles))
	for i := range j.Tiles {
		t := &j.Tiles[i]
		truth[i] = tileTruth{Tile: t, k: c.read(t, quant.HalfK), v: c.read(t, quant.HalfV)}
		if t.KCoded {
			truth[i].codes, _ = dequant.Codes(c.g, t.Coded, 0, quant.HalfK)
		}
		if t.VCoded {
			_, truth[i].vBits = dequant.Codes(c.g, t.Coded, 0, quant.HalfV)
		}
	}
	return truth
}

// end is the first token of the page that row vector i does not see.
func (t *tileTruth) end(j *kernels.AttnJob, i int) int {
	return min(t.Hi, j.Limit[i/j.Group]-t.First)
}

// scores is the scaled scores of query vector i, [tile][page token].
func scoresOf(j *kernels.AttnJob, truth []tileTruth, i int) [][]float64 {
	d := j.Geometry.HeadDim
	q := j.Q[i*d : (i+1)*d]
	all := make([][]float64, len(truth))
	for ti := range truth {
		t := &truth[ti]
		all[ti] = make([]float64, j.Geometry.Format.PageTokens)
		for tok := t.Lo; tok < t.end(j, i); tok++ {
			for ch, x := range q {
				all[ti][tok] += float64(x) * t.k[tok*d+ch] * float64(j.Scale)
			}
		}
	}
	return all
}

// oracle is the attention of query vector i over the values that the tiles
// stand for, in float64, and the weights, normalised.
func oracle(j *kernels.AttnJob, truth []tileTruth, i int) (out []float64, weights [][]float64) {
	d := j.Geometry.HeadDim
	weights = scoresOf(j, truth, i)
	out = make([]float64, d)
	var sum float64
	for ti := range truth {
		t := &truth[ti]
		for tok := t.Lo; tok < t.end(j, i); tok++ {
			weights[ti][tok] = math.Exp(weights[ti][tok]) // small here: no need of the largest
			sum += weights[ti][tok]
		}
	}
	for ti := range truth {
		t := &truth[ti]
		for tok := t.Lo; tok < t.end(j, i); tok++ {
			weights[ti][tok] /= sum
			for ch := range out {
				out[ch] += weights[ti][tok] * t.v[tok*d+ch]
			}
		}
	}
	return out, weights
}

// allFormats are the formats that the attention tests go through, and whether
// with a calibration (which makes hq symmetric).
var allFormats = []struct {
	name       string
	calibrated bool
}{
	{"f16", true}, {"hq2", true}, {"hq2", false}, {"hq3", true}, {"hq4", true}, {"hq4", false},
	{"hq2,k2=lead:16,v2=lead:32", true}, {"hq2,k2=lead:32", false}, {"hq2,k2=tokens:8,v2=tokens:16", true},
	{"hq2,k2=tokens:16,v2=tokens:8", false}, {"hq3,sinks=0,recent=0", true},
	{"hack", false}, {"hack,round=nearest", false}, {"hack,bits=8,partition=128,round=nearest", false},
	{"hack,bits=4,partition=32,se=off", false}, {"hack,rqe=off,round=nearest", false},
	{"hack:v2", false}, {"hack:v2,partition=32,bits=4", false}, {"hack:v2,partition=128,se=off", false},
	{"hack:v2,rqe=off,round=stochastic", false},
}

func formatName(name string, calibrated bool) string {
	if calibrated {
		return name
	}
	return name + "/uncalibrated"
}

func rms(x []float64) float64 {
	var s float64
	for _, v := range x {
		s += v * v
	}
	return math.Sqrt(s / float64(len(x)))
}
