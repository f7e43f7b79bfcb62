package widen

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/guard"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
)

func geometry(t testing.TB, name string, d int) *quant.Geometry {
	t.Helper()
	g, err := cases.Format{Name: name, Calibrated: true}.Geometry(2, 2, d)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// page codes 64 tokens, some of them far out and some channels constant, and gives
// the page of the last head, at the end of what may be read.
func page(t testing.TB, g *quant.Geometry, seed uint64) baseline.Page {
	r := rand.New(rand.NewPCG(seed, 1))
	exact, coded := make([]byte, g.ExactBytes()), guard.Bytes(t, g.CodedBytes())
	k, v := make([]float32, g.KVHeads*g.HeadDim), make([]float32, g.KVHeads*g.HeadDim)
	for tok := range g.Format.PageTokens {
		for i := range k {
			k[i], v[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
			switch {
			case i%g.HeadDim == 3:
				k[i] *= 50
			case i%g.HeadDim == 5:
				k[i] = 0.25
			case tok == 9:
				v[i] = 0
			case r.IntN(100) == 0:
				k[i], v[i] = 1e5*k[i], -1e5*v[i] // beyond float16
			}
		}
		g.PutExact(exact, tok, k, v)
	}
	g.Encode(quant.EncodeArgs{Exact: exact, Coded: coded, Layer: 1, Hi: g.Format.PageTokens})
	return baseline.Page{Coded: g.CodedHead(coded, g.KVHeads-1), Layer: 1, Head: g.KVHeads - 1}
}

// check compares a level's rows [lo, hi) with those of package baseline, bit for bit.
func check(t *testing.T, g *quant.Geometry, p baseline.Page, level cpu.Level, half, lo, hi int) {
	t.Helper()
	n := (hi - lo) * g.HeadDim
	want, got := make([]float32, n), guard.Floats(t, n)
	for i := range got {
		got[i] = float32(math.NaN())
	}
	var s baseline.Scratch
	s.Rows(want, g, p, half, lo, hi)
	For(level).Rows(&s, got, g, p, half, lo, hi, p.Coded)
	if !slices.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s, head_dim %d, half %d, tokens [%d,%d), %v: element %d is %g, want %g", g.Format.Name, g.HeadDim, half, lo, hi, level, i, got[i], want[i])
			}
		}
	}
}

var formats = []string{"kivi", "kivi,bits=4", "kivi,group=64", "kivi,bits=4,group=64", "kvquant", "kvquant,bits=3", "kvquant,bits=4"}

func TestRows(t *testing.T) {
	for _, name := range formats {
		for _, d := range []int{8, 16, 24, 40, 56, 64, 72, 80, 96, 128, 256} {
			g := geometry(t, name, d)
			p := page(t, g, uint64(d))
			for _, level := range cpu.Levels() {
				for half := range 2 {
					for _, r := range [][2]int{{0, 64}, {0, 1}, {29, 37}, {31, 33}, {63, 64}, {5, 5}, {8, 16}} {
						check(t, g, p, level, half, r[0], r[1])
					}
				}
			}
		}
	}
}

// Nothing but a baseline is widened, and nothing beyond the slices.
func TestRefuses(t *testing.T) {
	f := func(what string, g *quant.Geometry, dst, page []byte, lo, hi int) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: went through", what)
			}
		}()
		For(cpu.Best()).Rows(new(baseline.Scratch), make([]float32, len(dst)), g, baseline.Page{Coded: page}, quant.HalfK, lo, hi, nil)
	}
	g := geometry(t, "kivi", 64)
	good := make([]byte, g.HeadBytes)
	for _, name := range []string{"hq2", "hack", "hack:v2", "int4"} {
		other := geometry(t, name, 64)
		f(name, other, make([]byte, 64), make([]byte, other.HeadBytes), 0, 1)
	}
	f("a short page", g, make([]byte, 64), good[1:], 0, 1)
	f("a short destination", g, make([]byte, 63), good, 0, 1)
	f("tokens beyond the page", g, make([]byte, 128), good, 63, 65)
	f("a negative token", g, make([]byte, 64), good, -1, 0)
}

// Whatever bytes a page holds, every level makes the same of them (but for what a
// NaN looks like).
func FuzzRows(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint8(3), uint8(0), uint8(3), uint8(40))
	f.Fuzz(func(t *testing.T, data []byte, dim, format, lo, hi uint8) {
		g := geometry(t, formats[int(format)%len(formats)], 8*(1+int(dim)%20))
		if len(data) == 0 || lo > hi || hi > 64 {
			return
		}
		p := baseline.Page{Coded: make([]byte, g.HeadBytes)}
		for i := range p.Coded {
			p.Coded[i] = data[i%len(data)]
		}
		n := int(hi-lo) * g.HeadDim
		want, got := make([]float32, n), make([]float32, n)
		var s baseline.Scratch
		for half := range 2 {
			s.Rows(want, g, p, half, int(lo), int(hi))
			for _, level := range cpu.Levels() {
				For(level).Rows(&s, got, g, p, half, int(lo), int(hi), nil)
				for i, w := range want {
					if got[i] != w && (got[i] == got[i] || w == w) {
						t.Fatalf("%v, half %d: element %d is %g, want %g", level, half, i, got[i], w)
					}
				}
			}
		}
	})
}

// BenchmarkRows is a page in cache. The package comment has the floor.
func BenchmarkRows(b *testing.B) {
	const d = 128
	dst := make([]float32, 64*d)
	for _, name := range []string{"kivi", "kivi,bits=4", "kvquant", "kvquant,bits=3", "kvquant,bits=4"} {
		g := geometry(b, name, d)
		p := page(b, g, 1)
		for _, level := range cpu.Levels() {
			for half, what := range []string{"K", "V"} {
				b.Run(fmt.Sprintf("%s/d%d/%s/%v", what, d, name, level), func(b *testing.B) {
					var s baseline.Scratch
					for b.Loop() {
						For(level).Rows(&s, dst, g, p, half, 0, 64, nil)
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(dst)), "ns/element")
				})
			}
		}
	}
}
