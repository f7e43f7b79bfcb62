package ref

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// steps runs a job tile by tile, showing every block after its scores and, once
// they have become weights, after its values.
func steps(j *kernels.AttnJob, scores, values func(it *attendItem, ti int, b *block)) {
	n := len(j.Limit) * j.Group
	it := attendItem{j, 0, n}
	s := new(attender)
	s.reset(n, j.Geometry)
	for ti := range j.Tiles {
		t := &j.Tiles[ti]
		k, v := s.keys(j.Geometry, t.KCoded), s.values(j.Geometry, t.VCoded)
		k.prepare(&it)
		k.loadKeys(&it, t)
		v.loadValues(&it, t)
		for first := 0; first < n; first += lanes {
			if !s.b.aim(&it, t, first, n) {
				continue
			}
			k.scores(&it, &s.b)
			scores(&it, ti, &s.b)
			for l := range lanes {
				softmax(s.b.w[l], s.b.lo, s.b.end[l], j.Scale)
			}
			v.values(&it, &s.b)
			values(&it, ti, &s.b)
		}
	}
}

// With the same 8-bit queries and weights the arithmetic on codes is exact: its
// results are the products of the dequantised operands up to float32 rounding.
func TestAttendIsExactArithmetic(t *testing.T) {
	for fi, f := range cases.Formats() {
		for _, d := range []int{64, 80, 128} {
			j := newJob(t, f, d, 270+fi, 3, 3, uint64(fi))
			if j.Geometry.Format.Dequantised() {
				continue // no arithmetic on codes
			}
			truth := kerneltest.Truth(&j)
			name := fmt.Sprintf("%v/d%d", f, d)
			steps(&j, func(it *attendItem, ti int, b *block) {
				for l := range lanes {
					checkScores(t, name, it, &truth[ti], b, l)
				}
			}, func(it *attendItem, ti int, b *block) {
				for l := range lanes {
					checkValues(t, name, it, &truth[ti], b, l)
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

// within compares a sum with what it should be, given the sum of its terms'
// absolute values.
func within(t *testing.T, name string, got, want, size float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-6*size+1e-7) {
		t.Errorf("%s: %g, want %g (terms of %g)", name, got, want, size)
	}
}

func checkScores(t *testing.T, name string, it *attendItem, tile *kerneltest.TileTruth, b *block, l int) {
	g, d := it.job.Geometry, it.job.Geometry.HeadDim
	for tok := b.lo; tok < b.end[l]; tok++ {
		q := widenQuery(it, tile, b.first+l, tok)
		var want, size float64
		for ch, x := range q {
			p := x * tile.K[tok*d+ch]
			want, size = want+p, size+math.Abs(p)
		}
		if tile.KCoded && g.Format.Family == quant.FamilyHackV2 { // its queries stand beside scale and min
			want, size = 0, 0
			for ch, x := range q {
				_, zero := dequant.Params(g, g.CodedHead(tile.Coded, it.job.Head), quant.HalfK, tok, ch, g.Format.Bits)
				p := x*float64(tile.Codes[tok*d+ch]) + float64(it.query(b.first + l)[ch])*zero
				want, size = want+p, size+math.Abs(p)
			}
		}
		within(t, fmt.Sprintf("%s score of token %d", name, tok), float64(b.w[l][tok]), want, size)
	}
}

// widenQuery is what vector v's 8-bit query stands for at token tok, written
// from docs/formats.md.
func widenQuery(it *attendItem, tile *kerneltest.TileTruth, v, tok int) []float64 {
	g, q := it.job.Geometry, it.query(v)
	x := make([]float64, len(q))
	if !tile.KCoded {
		for i, y := range q {
			x[i] = float64(y)
		}
		return x
	}
	if g.Format.Family == quant.FamilyHQ {
		var top float32
		for _, y := range q {
			top = max(top, y, -y)
		}
		for i, y := range q {
			x[i] = math.Floor(float64(float32(y*(127/top))+0.5)) * float64(top/127)
		}
		return x
	}
	l, page := &g.Hack[quant.HalfK], g.CodedHead(tile.Coded, it.job.Head)
	for p := range l.Parts {
		from, to := l.Part(p, g.HeadDim)
		part := append([]float32(nil), q[from:to]...)
		element := from
		if g.Format.Family == quant.FamilyHackV2 {
			element += (tile.First + tok/g.Format.Partition*g.Format.Partition) * g.HeadDim
			for i := range part {
				scale, _ := dequant.Params(g, page, quant.HalfK, tok, from+i, g.Format.Bits)
				part[i] *= float32(scale)
			}
		}
		widen8(x[from:to], part, it.rounding(v, quant.StreamQ), element, 1)
	}
	return x
}

// widen8 is x after 8-bit coding over its own range.
func widen8(dst []float64, x []float32, round quant.Rounding, element, stride int) {
	lo, hi := x[0], x[0]
	for _, y := range x {
		lo, hi = min(lo, y), max(hi, y)
	}
	scale := (hi - lo) / 255
	if scale == 0 {
		scale = 1
	}
	for i, y := range x {
		code := round.Level((y-lo)*(1/scale), 255, element+i*stride)
		dst[i] = float64(scale)*float64(code) + float64(lo)
	}
}

func checkValues(t *testing.T, name string, it *attendItem, tile *kerneltest.TileTruth, b *block, l int) {
	g := it.job.Geometry
	if b.end[l] == b.lo {
		return
	}
	for ch := range g.HeadDim {
		var want, size float64
		switch {
		case !tile.VCoded:
			for tok, w := range b.w[l] {
				p := float64(w) * tile.V[tok*g.HeadDim+ch]
				want, size = want+p, size+math.Abs(p)
			}
		case g.Format.Family == quant.FamilyHQ:
			want, size = hqValue(it, tile, b.w[l], ch)
		default:
			want, size = hackValue(it, tile, b, l, ch)
		}
		within(t, fmt.Sprintf("%s value of channel %d", name, ch), float64(b.out[l][ch]), want, size)
	}
}

func hqValue(it *attendItem, tile *kerneltest.TileTruth, weights []float32, ch int) (want, size float64) {
	p := make([]float32, len(weights))
	var top float32
	for tok, w := range weights {
		step, _ := kerneltest.Folded(it.job, tile, tok, ch)
		p[tok] = w * float32(step)
		top = max(top, p[tok])
	}
	for tok, w := range weights {
		if w == 0 {
			continue
		}
		step, levels := kerneltest.Folded(it.job, tile, tok, ch)
		code := math.Floor(float64(float32(p[tok]*(255/top)) + 0.5))
		x := code * float64(top/255) * levels
		centre := float64(w) * (tile.V[tok*it.job.Geometry.HeadDim+ch] - step*levels)
		want, size = want+x+centre, size+math.Abs(x)+math.Abs(centre)
	}
	return want, size
}

func hackValue(it *attendItem, tile *kerneltest.TileTruth, b *block, l, ch int) (want, size float64) {
	g := it.job.Geometry
	half, width := &g.Hack[quant.HalfV], g.Format.Partition
	v2 := g.Format.Family == quant.FamilyHackV2
	for first := b.lo / width * width; first < b.hi; first += width {
		p := append([]float32(nil), b.w[l][first:first+width]...)
		parts, part := 1, 0
		if v2 {
			parts, part = half.Parts, ch/half.PartWidth
			for i := range p {
				scale, _ := dequant.Params(g, g.CodedHead(tile.Coded, 0), quant.HalfV, first+i, ch, g.Format.Bits)
				p[i] *= float32(scale)
			}
		}
		wide := make([]float64, width)
		widen8(wide, p, it.rounding(b.first+l, quant.StreamP), (tile.First+first)*parts+part, parts)
		for i, x := range wide {
			v, exact := tile.V[(first+i)*g.HeadDim+ch], 0.0
			if w := b.w[l][first+i]; v2 && w != 0 {
				scale, zero := dequant.Params(g, g.CodedHead(tile.Coded, 0), quant.HalfV, first+i, ch, g.Format.Bits)
				v, exact = (v-zero)/scale, float64(w)*zero
			}
			want, size = want+x*v+exact, size+math.Abs(x*v)+math.Abs(exact)
		}
	}
	return want, size
}

// Planes spread for the products hold the codes that docs/formats.md's layout
// says, and products with them are the integer sums, whatever the lanes carry.
func TestPlanesAndProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, half := range []int{quant.HalfK, quant.HalfV} {
		for _, width := range []int{32, 64, 96, 160} {
			const rows = 64
			plane := make([]byte, rows*width/4)
			for i := range plane {
				plane[i] = byte(r.Uint32())
			}
			got := unpack(nil, half, plane, width, rows)
			for row := range rows {
				for c := range width {
					word, at := row/8*(width/16)*8+c/16*8+row%8, row*width+c
					b, i := c%4, c%16/4
					if half == quant.HalfV {
						word, at = row/4*(width/32)*8+c/32*8+c%8, c*rows+row
						b, i = row%4, c%32/8
					}
					if want := plane[4*word+b] >> (2 * i) & 3; got[at] != want {
						t.Fatalf("half %d width %d row %d channel %d: code %d, want %d", half, width, row, c, got[at], want)
					}
				}
			}
		}
	}
	for _, sign := range []bool{false, true} {
		f := func(n int, value func() int32, code func() uint8) {
			t.Helper()
			x := operand{make([]uint64, n), sign}
			codes := make([]uint8, 4*n)
			for i := range codes {
				codes[i] = code()
			}
			var want, got [4][lanes]int32
			for i := range n {
				for l := range lanes {
					v := value()
					put(&x.words[i], l, v)
					for row := range 4 {
						want[row][l] += 4 * v * int32(codes[row*n+i])
					}
				}
			}
			x.products(&got, codes, n, 0, 0, n, 4)
			if got != want {
				t.Errorf("signed %v, %d terms: %v, want %v", sign, n, got, want)
			}
		}
		lo, hi := int32(0), int32(255)
		if sign {
			lo, hi = -127, 127
		}
		for _, n := range []int{1, 16, 79, 80, 81, 160, 256} {
			f(n, func() int32 { return lo + r.Int32N(hi-lo+1) }, func() uint8 { return uint8(r.UintN(4)) })
			f(n, func() int32 { return hi }, func() uint8 { return 3 })
			f(n, func() int32 { return lo }, func() uint8 { return 3 })
			f(n, func() int32 { return []int32{lo, hi}[r.IntN(2)] }, func() uint8 { return 3 })
		}
	}
}

func BenchmarkAttend(b *testing.B) {
	for _, f := range []string{"f16", "hq2", "hq3", "hq4", "hack", "hack,round=nearest", "hack:v2"} {
		for _, shape := range []struct{ rows, group, n int }{{64, 3, 1024}, {1, 3, 1024}} {
			j := newJob(b, cases.Format{Name: f, Calibrated: true}, 64, shape.n, shape.group, shape.rows, 1)
			b.Run(fmt.Sprintf("%dx%dx%d/%s", shape.rows, shape.group, shape.n, f), func(b *testing.B) {
				o := New(1)
				b.ReportAllocs()
				for b.Loop() {
					o.Attend([]kernels.AttnJob{j})
				}
				pairs := float64(shape.rows * shape.group * shape.n)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pairs, "ns/score")
			})
		}
	}
}
