package hack

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

func within(t *testing.T, name string, got, want, size float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-6*size+1e-7) {
		t.Fatalf("%s: %g, want %g (terms of %g)", name, got, want, size)
	}
}

// With the same 8-bit queries and weights the arithmetic on codes is exact: scores
// and values are the products of the dequantised operands, up to float32 rounding.
func TestExactArithmetic(t *testing.T) {
	for fi, f := range formats {
		for _, d := range []int{64, 80, 128} {
			j := newJob(t, f, d, 270+fi, 3, 3, uint64(fi))
			n := len(j.Limit) * j.Group
			a := NewAttender(cpu.Best(), plain())
			a.job, a.g = j, j.Geometry
			a.states = State{make([]float32, n), make([]float32, n), nil}
			a.reset(n, j.Tiles)
			for i := range j.Tiles {
				if !a.take(j.Tiles[i:i+1], n) {
					continue
				}
				p := &a.group[0]
				k, v := truth(j, p.Tile, quant.HalfK), truth(j, p.Tile, quant.HalfV)
				for first := 0; first < n; first += Lanes {
					if !a.aim(first, min(Lanes, n-first)) {
						continue
					}
					name := fmt.Sprintf("%s/d%d tile %d", f, d, i)
					a.readKeys(p)
					for l := range a.n {
						checkScores(t, name, a, k, l)
					}
					a.weigh()
					clear(a.out)
					a.readValues(p)
					for l := range a.n {
						checkValues(t, name, a, v, l)
					}
				}
			}
		}
	}
}

func checkScores(t *testing.T, name string, a *Attender, k []float64, l int) {
	d, tile := a.g.HeadDim, &a.group[0]
	for tok := tile.Lo; tok < tile.end[l]; tok++ {
		q := codedQuery(a, l, tok)
		var want, size float64
		for c, x := range q {
			p, exact := x*k[tok*d+c], 0.0
			if tile.KCoded && a.g.Format.Family == quant.FamilyHackV2 { // its queries stand beside scale and min
				scale, zero := params(a.job, tile.Tile, quant.HalfK, tok, c)
				p, exact = x*math.Round((k[tok*d+c]-zero)/scale), float64(a.queries(a.first+l, 1)[c])*zero
			}
			want, size = want+p+exact, size+math.Abs(p)+math.Abs(exact)
		}
		within(t, fmt.Sprintf("%s score of token %d", name, tok), float64(a.row(l, 0)[tok]), want, size)
	}
}

// codedQuery is what lane l's 8-bit query stands for at token tok.
func codedQuery(a *Attender, l, tok int) []float64 {
	q, tile := a.queries(a.first+l, 1), &a.group[0]
	var wide []float64
	if !tile.KCoded {
		for _, x := range q {
			wide = append(wide, float64(x))
		}
		return wide
	}
	half := &a.g.Hack[quant.HalfK]
	for p := range half.Parts {
		from, to := half.Part(p, a.g.HeadDim)
		part, element := slices.Clone(q[from:to]), from
		if a.g.Format.Family == quant.FamilyHackV2 {
			element += (tile.First + tok/a.g.Format.Partition*a.g.Format.Partition) * a.g.HeadDim
			for i := range part {
				scale, _ := params(a.job, tile.Tile, quant.HalfK, tok, from+i)
				part[i] *= float32(scale)
			}
		}
		wide = append(wide, widen8(part, a.rounding(a.first+l, quant.StreamQ), element, 1)...)
	}
	return wide
}

func checkValues(t *testing.T, name string, a *Attender, v []float64, l int) {
	if p := &a.group[0]; p.end[l] == p.Lo {
		return
	}
	for c := range a.g.HeadDim {
		want, size := value(a, v, l, c)
		within(t, fmt.Sprintf("%s value of channel %d", name, c), a.out[l*a.g.HeadDim+c], want, size)
	}
}

// value is channel c of lane l's weighted values, from its 8-bit weights.
func value(a *Attender, v []float64, l, c int) (want, size float64) {
	d, w, tile := a.g.HeadDim, a.row(l, 0)[:a.g.Format.PageTokens], &a.group[0]
	if !tile.VCoded {
		for tok, x := range w {
			want, size = want+float64(x)*v[tok*d+c], size+math.Abs(float64(x)*v[tok*d+c])
		}
		return want, size
	}
	half, width := &a.g.Hack[quant.HalfV], a.g.Format.Partition
	for first := tile.Lo / width * width; first < tile.hi; first += width {
		p, parts, part := slices.Clone(w[first:first+width]), 1, 0
		v2 := a.g.Format.Family == quant.FamilyHackV2
		if v2 {
			parts, part = half.Parts, c/half.PartWidth
			for i := range p {
				scale, _ := params(a.job, tile.Tile, quant.HalfV, first+i, c)
				p[i] *= float32(scale)
			}
		}
		for i, x := range widen8(p, a.rounding(a.first+l, quant.StreamP), (tile.First+first)*parts+part, parts) {
			y, exact := v[(first+i)*d+c], 0.0
			if w := w[first+i]; v2 && w != 0 {
				scale, zero := params(a.job, tile.Tile, quant.HalfV, first+i, c)
				y, exact = math.Round((y-zero)/scale), float64(w)*zero
			}
			want, size = want+x*y+exact, size+math.Abs(x*y)+math.Abs(exact)
		}
	}
	return want, size
}

// attention is what a job's outputs should be, over the values that the tiles stand
// for.
func attention(j *kernels.AttnJob) []float64 {
	d := j.Geometry.HeadDim
	all := make([]float64, len(j.Out))
	sums := make([]float64, len(j.Limit)*j.Group)
	for i := range j.Tiles {
		tile := &j.Tiles[i]
		k, v := truth(j, tile, quant.HalfK), truth(j, tile, quant.HalfV)
		for vec := range sums {
			for tok := tile.Lo; tok < min(tile.Hi, j.Limit[vec/j.Group]-tile.First); tok++ {
				var s float64
				for c, x := range j.Q[vec*d : (vec+1)*d] {
					s += float64(x) * k[tok*d+c]
				}
				w := math.Exp(s * float64(j.Scale)) // small here: no need of the largest
				sums[vec] += w
				for c := range d {
					all[vec*d+c] += w * v[tok*d+c]
				}
			}
		}
	}
	for i := range all {
		all[i] /= sums[i/d]
	}
	return all
}

// The outputs are attention over the dequantised pages within the typical error of
// 8-bit queries and weights (the bounds of package kernels/ref's tests), and the
// same bits at every level, in any grouping, with nothing left of an earlier job.
func TestRun(t *testing.T) {
	for fi, f := range formats {
		for di, d := range []int{64, 72, 96, 128, 256} {
			if testing.Short() && di > 1 {
				break
			}
			for group, rows := range map[int]int{1: 2, 3: 2, 8: 1} {
				j := newJob(t, f, d, 201+37*((fi+3*di)%7), group, rows, uint64(fi*10+di))
				name := fmt.Sprintf("%s/d%d/G%d", f, d, group)
				n := rows * group
				want := attention(j)
				run(NewAttender(cpu.Generic, plain()), j, 0, n)
				first := slices.Clone(j.Out)
				var e, size float64
				for i, x := range first {
					e, size = e+(float64(x)-want[i])*(float64(x)-want[i]), size+want[i]*want[i]
				}
				typical := 0.03
				if j.Geometry.Format.Family == quant.FamilyHackV2 {
					typical = 0.12
				}
				if got := math.Sqrt(e / size); !(got < typical) {
					t.Fatalf("%s: error %.4f of the output's rms", name, got)
				}
				for _, level := range cpu.Levels() {
					a := NewAttender(level, plain())
					cuts := []int{n / 2}
					if level == cpu.Best() {
						cuts = []int{0, 1, n / 2, n - 1}
					}
					for _, cut := range cuts {
						for i := range j.Out {
							j.Out[i] = float32(math.NaN())
						}
						run(a, j, cut, n)
						run(a, j, 0, cut)
						if !slices.Equal(j.Out, first) {
							t.Fatalf("%s at %v, cut at %d: other bits", name, level, cut)
						}
					}
				}
			}
		}
	}
}

// A row that sees nothing gets zeros, and leaves its neighbours alone.
func TestEmptyRows(t *testing.T) {
	for _, f := range formats {
		j := newJob(t, f, 64, 260, 1, 4, 3)
		a := NewAttender(cpu.Best(), plain())
		run(a, j, 0, 4)
		want := slices.Clone(j.Out)
		j.Limit[0], j.Limit[2] = 0, 0
		run(a, j, 0, 4)
		clear(want[:64])
		clear(want[128:192])
		if !slices.Equal(j.Out, want) {
			t.Errorf("%s: rows without tokens are not zero or change others", f)
		}
	}
}

// A NaN in a query is not hidden, and stays with that query.
func TestNaN(t *testing.T) {
	for _, f := range formats {
		for _, level := range cpu.Levels() {
			j := newJob(t, f, 64, 260, 2, 2, 3)
			j.Q[64+13] = float32(math.NaN())
			run(NewAttender(level, plain()), j, 0, 4)
			for i, x := range j.Out {
				if (x != x) != (i/64 == 1) {
					t.Fatalf("%s at %v: channel %d of vector %d is %g", f, level, i%64, i/64, x)
				}
			}
		}
	}
}

func TestNoAllocations(t *testing.T) {
	j := newJob(t, "hack", 64, 300, 4, 1, 1)
	a, s := NewAttender(cpu.Best(), plain()), State{make([]float32, 4), make([]float32, 4), make([]float32, 4*64)}
	span := func() { a.Span(j, 0, 4, 0, len(j.Tiles), s) }
	span()
	if n := testing.AllocsPerRun(5, span); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkDecode is one query of 4 heads over 1,024 tokens of one KV head, in
// cache; the softmax is the tests' plain one.
func BenchmarkDecode(b *testing.B) {
	for _, f := range []string{"hack", "hack,round=nearest", "hack:v2"} {
		j := newJob(b, f, 128, 1024, 4, 1, 1)
		for _, level := range cpu.Levels() {
			b.Run(fmt.Sprintf("4x1024/d128/%s/%v", f, level), func(b *testing.B) {
				lent := plain()
				lent.Weigh = func(_, _ int, _ *[Lanes]int, _ float32, _, _ *[Lanes]float32) {} // not ours to time
				a := NewAttender(level, lent)
				b.ReportAllocs()
				s := State{make([]float32, 4), make([]float32, 4), make([]float32, 4*128)}
				for b.Loop() {
					a.Span(j, 0, 4, 0, len(j.Tiles), s)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/token-head")
			})
		}
	}
}

// BenchmarkKernels is one page of 64 tokens, its integer products with 4 vectors.
func BenchmarkKernels(b *testing.B) {
	const d = 128
	plane, q := Plane{make([]byte, 64*d/4), d}, make([]byte, 4*d)
	dots := make([]int32, 4*d)
	for _, level := range cpu.Levels() {
		b.Run(fmt.Sprintf("QK/4x64/d128/%v", level), func(b *testing.B) {
			for b.Loop() {
				For(level).QK(dots, 64, 4, q, plane, Span{0, 4}, Span{0, 64}, 0)
				For(level).QK(dots, 64, 4, q, plane, Span{4, 4}, Span{0, 64}, 0)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/token-head")
		})
		b.Run(fmt.Sprintf("PV/4x64/d128/%v", level), func(b *testing.B) {
			for b.Loop() {
				For(level).PV(dots, d, 4, q, 64, plane, Span{0, 4}, Span{0, 16}, 0)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/64, "ns/token-head")
		})
	}
}
