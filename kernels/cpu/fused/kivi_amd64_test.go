//go:build !purego

package fused

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/guard"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
)

// kiviWork is a page of kivi and vectors, at the end of what may be accessed.
type kiviWork struct {
	g         *quant.Geometry
	n, ld     int
	page      []byte
	q, w, acc []float32
	k, v      []float32 // what the codes stand for
}

func newKIVIWork(t testing.TB, name string, d, n int, seed uint64) *kiviWork {
	t.Helper()
	f, err := quant.ParseFormat(name, false)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 1, 1, d)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 9))
	exact, k, v := make([]byte, g.ExactBytes()), make([]float32, d), make([]float32, d)
	for tok := range pageTokens {
		for c := range k {
			k[c], v[c] = float32(r.NormFloat64()*(1+float64(c%7))+float64(c%3)), float32(r.NormFloat64())
			if tok == 9 {
				v[c] = 0
			}
		}
		g.PutExact(exact, tok, k, v)
	}
	w := &kiviWork{g: g, n: n, ld: pageTokens + int(seed%3), page: guard.Bytes(t, g.HeadBytes)}
	g.Encode(quant.EncodeArgs{Exact: exact, Coded: w.page, Hi: pageTokens})
	w.k, w.v = make([]float32, pageTokens*d), make([]float32, pageTokens*d)
	var s baseline.Scratch
	s.Rows(w.k, g, baseline.Page{Coded: w.page}, quant.HalfK, 0, pageTokens)
	s.Rows(w.v, g, baseline.Page{Coded: w.page}, quant.HalfV, 0, pageTokens)
	w.q, w.acc = guard.Floats(t, n*d), guard.Floats(t, n*g.Hack[quant.HalfV].Width)
	w.w = guard.Floats(t, max(0, (n-1)*w.ld+pageTokens))
	for i := range w.q {
		w.q[i] = float32(r.NormFloat64())
	}
	return w
}

// Scores and outputs are those of the values that the codes stand for, and a vector's
// are the same bits whatever others are computed with it.
func TestKIVI(t *testing.T) {
	for _, level := range cpu.Levels() {
		for _, name := range []string{"kivi", "kivi,group=64"} {
			for i, d := range []int{8, 24, 40, 64, 72, 80, 96, 128, 256} {
				for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8} {
					w := newKIVIWork(t, name, d, n, uint64(10*i+n))
					if !For(level).HasKIVI(w.g) {
						continue
					}
					w.check(t, For(level), fmt.Sprintf("%v, %s, d %d, %d vectors", level, name, d, n))
				}
			}
		}
	}
}

func (w *kiviWork) check(t *testing.T, k Kernels, what string) {
	t.Helper()
	d, width := w.g.HeadDim, w.g.Hack[quant.HalfV].Width
	for i := range w.w {
		w.w[i] = float32(math.NaN())
	}
	var s KIVI
	s.QK(k, w.w, w.ld, w.q, w.n, w.g, w.page, w.page)
	for i := range w.n {
		for tok := range pageTokens {
			var want, size float64
			for c := range d {
				p := float64(w.q[i*d+c]) * float64(w.k[tok*d+c])
				want, size = want+p, size+math.Abs(p)
			}
			if got := float64(w.w[i*w.ld+tok]); !(math.Abs(got-want) <= 3e-6*(1+size)) {
				t.Fatalf("%s: score of vector %d, token %d is %g, want %g (terms of %g)", what, i, tok, got, want, size)
			}
		}
		alone := make([]float32, pageTokens)
		s.QK(k, alone, pageTokens, w.q[i*d:(i+1)*d], 1, w.g, w.page, nil)
		for tok, x := range alone {
			if x != w.w[i*w.ld+tok] {
				t.Fatalf("%s: vector %d alone has another score of token %d", what, i, tok)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range w.w {
		w.w[i] = r.Float32()
		if i%13 == 0 {
			w.w[i] = 0
		}
	}
	before := make([]float32, len(w.acc))
	for i := range w.acc {
		before[i] = float32(r.NormFloat64())
	}
	copy(w.acc, before)
	s.PV(k, w.acc, w.n, w.w, w.ld, w.g, w.page, w.page)
	for i := range w.n {
		for c := range d {
			want, size := float64(before[i*width+c]), 1.0
			for tok := range pageTokens {
				p := float64(w.w[i*w.ld+tok]) * float64(w.v[tok*d+c])
				want, size = want+p, size+math.Abs(p)
			}
			if got := float64(w.acc[i*width+c]); !(math.Abs(got-want) <= 1e-6*size) {
				t.Fatalf("%s: output of vector %d, channel %d is %g, want %g", what, i, c, got, want)
			}
		}
		alone := append([]float32(nil), before[i*width:(i+1)*width]...)
		s.PV(k, alone, 1, w.w[i*w.ld:i*w.ld+pageTokens], pageTokens, w.g, w.page, nil)
		for c, x := range alone {
			if x != w.acc[i*width+c] {
				t.Fatalf("%s: vector %d alone has another output %d", what, i, c)
			}
		}
	}
}

func TestKIVIRefuses(t *testing.T) {
	w := newKIVIWork(t, "kivi", 64, 1, 1)
	k := For(cpu.Best())
	f := func(what string, do func(s *KIVI)) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: went through", what)
			}
		}()
		do(new(KIVI))
	}
	f("a short page", func(s *KIVI) { s.QK(k, w.w, w.ld, w.q, 1, w.g, w.page[1:], nil) })
	f("few scores", func(s *KIVI) { s.QK(k, w.w[1:], w.ld, w.q, 1, w.g, w.page, nil) })
	f("a short vector", func(s *KIVI) { s.QK(k, w.w, w.ld, w.q[1:], 1, w.g, w.page, nil) })
	f("few outputs", func(s *KIVI) { s.PV(k, w.acc[1:], 1, w.w, w.ld, w.g, w.page, nil) })
	f("4 bits", func(s *KIVI) {
		wide := newKIVIWork(t, "kivi,bits=4", 64, 1, 1)
		s.QK(k, w.w, w.ld, w.q, 1, wide.g, wide.page, nil)
	})
}
