package fused

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/guard"
	"github.com/terse-llm/terse/quant"
)

// work is a page and vectors, at the end of what may be accessed.
type work struct {
	l         Layout
	n, ld     int
	page      []byte
	q, w, acc []float32
	k, v      []float32 // what was coded
}

func newWork(t testing.TB, d, kBits, vBits, n int, seed uint64) *work {
	r := rand.New(rand.NewPCG(seed, 7))
	w := &work{l: quant.NewGroupLayout(d, kBits, vBits), n: n, ld: pageTokens + int(seed%3)}
	w.k, w.v = make([]float32, pageTokens*d), make([]float32, pageTokens*d)
	for i := range w.k {
		w.k[i] = float32((r.NormFloat64() + 0.3*float64(i%3-1)) * (1 + float64(i%7)/4))
		w.v[i] = float32(r.NormFloat64())
		switch r.IntN(100) {
		case 0:
			w.k[i] *= 30
		case 1:
			w.v[i] = 0
		}
	}
	clear(w.k[5*d : 6*d]) // a token of zeros
	clear(w.v[7*d : 8*d])
	w.page = guard.Bytes(t, w.l.Bytes)
	w.l.Encode(new(quant.Scratch), w.page, quant.HalfK, w.k, 0, pageTokens)
	w.l.Encode(new(quant.Scratch), w.page, quant.HalfV, w.v, 0, pageTokens)
	w.q, w.acc = make([]float32, n*d), guard.Floats(t, n*w.l.Width)
	w.w = guard.Floats(t, max(0, (n-1)*w.ld+pageTokens))
	for i := range w.q {
		w.q[i] = float32(r.NormFloat64())
	}
	for i := range w.w {
		w.w[i] = r.Float32()
	}
	for i := range w.acc {
		w.acc[i] = float32(r.NormFloat64())
	}
	return w
}

// decoded is what token t's channel c of K (V) stands for.
func (w *work) decoded(halfOf, t, c int) float64 {
	l, h, at := &w.l, &w.l.Halves[halfOf], c/groupWidth*pageTokens+t
	scale := float64(half(w.page[h.Scales:], at))
	if halfOf == quant.HalfK {
		code := float64(key(l, w.page, t, c))
		if h.Bits == 4 {
			return code*float64(shrink(c%8/2))*scale + float64(half(w.page[h.Zeros:], at))
		}
		return code * scale
	}
	if h.Bits == 4 {
		return float64(value(l, w.page, t, c))*scale + float64(half(w.page[h.Zeros:], at))
	}
	return float64(value(l, w.page, t, c)) * scale
}

func each(t *testing.T, f func(t *testing.T, w *work, name string)) {
	for _, bits := range [][2]int{{4, 4}, {8, 8}, {8, 4}, {4, 8}} {
		for i, d := range []int{1, 8, 64, 72, 80, 96, 128, 192, 256} {
			for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8} {
				f(t, newWork(t, d, bits[0], bits[1], n, uint64(100*i+n)), fmt.Sprintf("K int%d, V int%d, d %d, %d vectors", bits[0], bits[1], d, n))
			}
		}
	}
}

// Codes are within half a step of what was coded.
func TestEncode(t *testing.T) {
	each(t, func(t *testing.T, w *work, name string) {
		for tok := range pageTokens {
			for c := range w.l.HeadDim {
				for _, x := range []struct {
					half int
					want float32
				}{{quant.HalfK, w.k[tok*w.l.HeadDim+c]}, {quant.HalfV, w.v[tok*w.l.HeadDim+c]}} {
					scale := float64(half(w.page[w.l.Halves[x.half].Scales:], c/groupWidth*pageTokens+tok))
					// A float16 scale may be low by 2^-11, and the ends off by that of the range.
					if got := w.decoded(x.half, tok, c); !(math.Abs(got-float64(x.want)) <= 0.51*scale+0.001*math.Abs(float64(x.want))+255*scale/2048) {
						t.Fatalf("%s: token %d channel %d: %g for %g, step %g", name, tok, c, got, x.want, scale)
					}
				}
			}
		}
	})
}

func near(t *testing.T, what string, got float32, want, size float64) {
	t.Helper()
	if !(math.Abs(float64(got)-want) <= 2e-6*size+1e-30) {
		t.Fatalf("%s: %g, want %g (terms of %g)", what, got, want, size)
	}
}

// Every level computes the products of the dequantised page, up to float32
// rounding of codes, zeros and sums.
func TestAgainstFloat64(t *testing.T) { each(t, check) }

func check(t *testing.T, w *work, name string) {
	d := w.l.HeadDim
	var p Queries
	p.Prepare(&w.l, w.q, w.n)
	for _, level := range cpu.Levels() {
		score, output := fmt.Sprintf("%v, %s: score", level, name), fmt.Sprintf("%v, %s: output", level, name)
		scores := make([]float32, len(w.w))
		for i := range scores {
			scores[i] = float32(math.NaN())
		}
		For(level).QK(scores, w.ld, &p, &w.l, w.page, nil)
		acc := append([]float32(nil), w.acc...)
		For(level).PV(acc, w.n, w.w, w.ld, &w.l, w.page, w.page)
		for i := range w.n {
			for tok := range min(w.ld, len(scores)-i*w.ld) {
				if tok >= pageTokens {
					if x := scores[i*w.ld+tok]; x == x {
						t.Fatalf("%v, %s: wrote between rows", level, name)
					}
					continue
				}
				var want, size float64
				for c := range d {
					x := float64(w.q[i*d+c])
					zero := 0.0
					if w.l.Halves[quant.HalfK].Bits == 4 {
						zero = float64(half(w.page[w.l.Halves[quant.HalfK].Zeros:], c/groupWidth*pageTokens+tok))
					}
					k := w.decoded(quant.HalfK, tok, c)
					want, size = want+x*k, size+math.Abs(x*zero)+math.Abs(x*(k-zero))
				}
				near(t, score, scores[i*w.ld+tok], want, size)
			}
			for c := range w.l.Width {
				want, size := float64(w.acc[i*w.l.Width+c]), math.Abs(float64(w.acc[i*w.l.Width+c]))
				for tok := range pageTokens {
					x, zero := float64(w.w[i*w.ld+tok]), 0.0
					if w.l.Halves[quant.HalfV].Bits == 4 {
						zero = float64(half(w.page[w.l.Halves[quant.HalfV].Zeros:], c/groupWidth*pageTokens+tok))
					}
					v := w.decoded(quant.HalfV, tok, c)
					want, size = want+x*v, size+math.Abs(x*zero)+math.Abs(x*(v-zero))
				}
				near(t, output, acc[i*w.l.Width+c], want, size)
			}
		}
	}
}

// A vector's results are the same bits alone and with others.
func TestOneOrder(t *testing.T) {
	each(t, func(t *testing.T, w *work, name string) {
		if w.n < 2 {
			return
		}
		var p, one Queries
		p.Prepare(&w.l, w.q, w.n)
		for _, level := range cpu.Levels() {
			scores, acc := make([]float32, len(w.w)), append([]float32(nil), w.acc...)
			For(level).QK(scores, w.ld, &p, &w.l, w.page, nil)
			For(level).PV(acc, w.n, w.w, w.ld, &w.l, w.page, nil)
			for i := range w.n {
				one.Prepare(&w.l, w.q[i*w.l.HeadDim:(i+1)*w.l.HeadDim], 1)
				alone, out := make([]float32, pageTokens), append([]float32(nil), w.acc[i*w.l.Width:(i+1)*w.l.Width]...)
				For(level).QK(alone, pageTokens, &one, &w.l, w.page, nil)
				For(level).PV(out, 1, w.w[i*w.ld:], pageTokens, &w.l, w.page, nil)
				for tok, x := range alone {
					if math.Float32bits(x) != math.Float32bits(scores[i*w.ld+tok]) {
						t.Fatalf("%v, %s: score %d of vector %d depends on the others", level, name, tok, i)
					}
				}
				for c, x := range out {
					if math.Float32bits(x) != math.Float32bits(acc[i*w.l.Width+c]) {
						t.Fatalf("%v, %s: channel %d of vector %d depends on the others", level, name, c, i)
					}
				}
			}
		}
	})
}

func FuzzLevels(f *testing.F) {
	f.Add(uint64(1), uint8(4), uint16(128), true, true)
	f.Add(uint64(2), uint8(3), uint16(79), false, true)
	bits := map[bool]int{true: 4, false: 8}
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, d uint16, kFour, vFour bool) {
		check(t, newWork(t, int(d%300)+1, bits[kFour], bits[vFour], int(n%9), seed), "fuzzed")
	})
}
