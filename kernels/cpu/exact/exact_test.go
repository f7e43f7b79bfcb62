package exact

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/guard"
	"github.com/terse-llm/terse/tensor"
)

var types = []tensor.DType{tensor.F16, tensor.F32}

// work is the operands of one call. Its slices end where nothing may be accessed.
type work struct {
	n, d, tokens, ld int
	rows             Rows
	q, w, acc        []float32
}

// newWork draws operands: Gaussian with some channels larger, as models have
// them, and here and there a zero or an outlier.
func newWork(t testing.TB, typ tensor.DType, n, d, tokens int, seed uint64) *work {
	r := rand.New(rand.NewPCG(seed, 3))
	k := &work{n: n, d: d, tokens: tokens, ld: tokens + int(seed%5)}
	k.rows = Rows{Type: typ}
	k.rows.Data = guard.Bytes(t, tokens*k.rows.stride(d))
	for i := range tokens * d {
		x := float32(r.NormFloat64() * (1 + float64(i%d%7)/4))
		switch r.IntN(50) {
		case 0:
			x = 0
		case 1:
			x *= 300
		}
		h := tensor.F32ToF16(x)
		if typ == tensor.F16 {
			binary.LittleEndian.PutUint16(k.rows.Data[2*i:], h)
		} else {
			binary.LittleEndian.PutUint32(k.rows.Data[4*i:], math.Float32bits(tensor.F16ToF32(h)))
		}
	}
	k.q, k.acc = guard.Floats(t, n*d), guard.Floats(t, n*d)
	k.w = guard.Floats(t, max(0, (n-1)*k.ld+tokens))
	for i := range k.q {
		k.q[i] = float32(r.NormFloat64())
		k.acc[i] = float32(r.NormFloat64())
	}
	for i := range k.w {
		k.w[i] = r.Float32()
		if r.IntN(9) == 0 {
			k.w[i] = 0
		}
	}
	return k
}

func same(a, b []float32) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

func clone(x []float32) []float32 { return append([]float32(nil), x...) }

var (
	testDims   = []int{1, 3, 7, 8, 15, 16, 17, 24, 40, 64, 72, 80, 96, 100, 128, 136, 256}
	testTokens = []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 17, 63, 64}
	testCounts = []int{0, 1, 2, 3, 4, 5, 7, 8, 13}
)

// each runs f over levels, types and shapes; every shape comes up over the runs
// of the other dimensions.
func each(t *testing.T, f func(t *testing.T, k Kernels, w *work)) {
	for _, level := range cpu.Levels() {
		for _, typ := range types {
			t.Run(fmt.Sprintf("%v/%v", level, typ), func(t *testing.T) {
				for i, d := range testDims {
					for j, tokens := range testTokens {
						f(t, For(level), newWork(t, typ, testCounts[(i+j)%len(testCounts)], d, tokens, uint64(100*i+j)))
					}
				}
			})
		}
	}
}

// near compares a sum with the exact one, given the sum of its terms' absolute
// values: float32 sums of a few hundred terms.
func near(t *testing.T, what string, got float32, want, size float64) {
	t.Helper()
	if !(math.Abs(float64(got)-want) <= 2e-6*size+1e-30) {
		t.Fatalf("%s: %g, want %g (terms of %g)", what, got, want, size)
	}
}

// Scores and outputs are the sums in float64 up to float32 rounding; poisoned
// scores are overwritten and what lies between rows of scores is left alone.
func TestAgainstFloat64(t *testing.T) {
	each(t, func(t *testing.T, k Kernels, w *work) {
		score, output := w.shape()+" score", w.shape()+" output"
		got, nan := clone(w.w), float32(math.NaN())
		for i := range got {
			got[i] = nan
		}
		k.QK(got, w.ld, w.q, w.n, w.d, w.rows)
		for i := range w.n {
			for at := range min(w.ld, len(got)-i*w.ld) {
				if at >= w.tokens {
					if x := got[i*w.ld+at]; x == x {
						t.Fatalf("%+v: wrote score %d of %d", w.shape(), at, w.tokens)
					}
					continue
				}
				var want, size float64
				for c := range w.d {
					p := float64(w.q[i*w.d+c]) * float64(w.rows.at(at*w.d+c))
					want, size = want+p, size+math.Abs(p)
				}
				near(t, score, got[i*w.ld+at], want, size)
			}
		}
		out := clone(w.acc)
		k.PV(out, w.n, w.d, w.w, w.ld, w.rows)
		for i := range w.n * w.d {
			want, size := float64(w.acc[i]), math.Abs(float64(w.acc[i]))
			for at := range w.tokens {
				p := float64(w.w[i/w.d*w.ld+at]) * float64(w.rows.at(at*w.d+i%w.d))
				want, size = want+p, size+math.Abs(p)
			}
			near(t, output, out[i], want, size)
		}
	})
}

func (w *work) shape() string { return fmt.Sprintf("%d vectors, d %d, %d tokens", w.n, w.d, w.tokens) }

// A vector's results are the same bits alone and with others, with all tokens
// and with some, and with something to fetch.
func TestOneOrder(t *testing.T) {
	each(t, func(t *testing.T, k Kernels, w *work) {
		if w.n == 0 || w.tokens == 0 {
			return
		}
		scores, out := clone(w.w), clone(w.acc)
		k.QK(scores, w.ld, w.q, w.n, w.d, w.rows)
		k.PV(out, w.n, w.d, w.w, w.ld, w.rows)
		cut := w.tokens * 3 / 7
		lo, hi := w.rows, w.rows
		lo.Data, hi.Data = w.rows.Data[:cut*w.rows.stride(w.d)], w.rows.Data[cut*w.rows.stride(w.d):]
		lo.Next = hi.Data
		for i := range w.n {
			q, acc := w.q[i*w.d:(i+1)*w.d], clone(w.acc[i*w.d:(i+1)*w.d])
			alone := make([]float32, w.tokens)
			k.QK(alone, w.tokens, q, 1, w.d, lo)
			k.QK(alone[cut:], w.tokens, q, 1, w.d, hi)
			if !same(alone, scores[i*w.ld:][:w.tokens]) {
				t.Fatalf("%s: scores of vector %d depend on what they are computed with", w.shape(), i)
			}
			weights := w.w[i*w.ld:]
			k.PV(acc, 1, w.d, weights, w.tokens, lo)
			k.PV(acc, 1, w.d, weights[cut:], w.tokens, hi)
			if !same(acc, out[i*w.d:(i+1)*w.d]) {
				t.Fatalf("%s: output of vector %d depends on what it is computed with", w.shape(), i)
			}
		}
	})
}

// Float16 rows and their widened copy give the same bits.
func TestTypesAgree(t *testing.T) {
	for _, level := range cpu.Levels() {
		for _, d := range testDims {
			a, b := newWork(t, tensor.F16, 7, d, 23, 9), newWork(t, tensor.F32, 7, d, 23, 9)
			k := For(level)
			wide := k.Widen(guard.Bytes(t, 4*d*23), a.rows)
			if !bytes.Equal(wide.Data, b.rows.Data) {
				t.Fatalf("%v, d %d: widened wrongly", level, d)
			}
			b.rows = wide
			k.PV(a.acc, 7, d, a.w, a.ld, a.rows)
			k.PV(b.acc, 7, d, b.w, b.ld, b.rows)
			k.QK(a.w, a.ld, a.q, 7, d, a.rows)
			k.QK(b.w, b.ld, b.q, 7, d, b.rows)
			if !same(a.acc, b.acc) || !same(a.w, b.w) {
				t.Errorf("%v, d %d: results differ between float16 and float32 rows", level, d)
			}
		}
	}
}

// What lies beyond the slices is refused before any kernel sees it.
func TestBounds(t *testing.T) {
	x, f := make([]byte, 2*64*8), make([]float32, 4*64)
	r := Rows{Data: x, Type: tensor.F16}
	for name, call := range map[string]func(k Kernels){
		"ragged rows":   func(k Kernels) { k.QK(f, 8, f, 1, 63, r) },
		"another type":  func(k Kernels) { k.QK(f, 8, f, 1, 64, Rows{Data: x, Type: tensor.BF16}) },
		"short q":       func(k Kernels) { k.QK(f, 8, f[:255], 4, 64, r) },
		"short scores":  func(k Kernels) { k.QK(f[:31], 8, f, 4, 64, r) },
		"short stride":  func(k Kernels) { k.QK(f, 7, f, 4, 64, r) },
		"short acc":     func(k Kernels) { k.PV(f[:255], 4, 64, f, 8, r) },
		"short weights": func(k Kernels) { k.PV(f, 4, 64, f[:31], 8, r) },
		"no channels":   func(k Kernels) { k.PV(f, 4, 0, f, 8, r) },
		"short copy":    func(k Kernels) { k.Widen(x[:len(x)-1], Rows{Data: x[:len(x)/2], Type: tensor.F16}) },
		"wide already":  func(k Kernels) { k.Widen(x, Rows{Data: x[:64], Type: tensor.F32}) },
		"less than one": func(k Kernels) { k.PV(f, -1, 64, f, 8, r) },
	} {
		for _, level := range cpu.Levels() {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%v: %s is not refused", level, name)
					}
				}()
				call(For(level))
			}()
		}
	}
}

// Every level agrees with the generic twin, whatever the numbers.
func FuzzLevels(f *testing.F) {
	f.Add(uint64(1), uint8(4), uint16(128), uint8(64), false)
	f.Add(uint64(2), uint8(3), uint16(79), uint8(5), true)
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, d uint16, tokens uint8, wide bool) {
		w := newWork(t, types[map[bool]int{true: 1}[wide]], int(n%9), int(d%300)+1, int(tokens%70), seed)
		want, wantOut := clone(w.w), clone(w.acc)
		For(cpu.Generic).QK(want, w.ld, w.q, w.n, w.d, w.rows)
		For(cpu.Generic).PV(wantOut, w.n, w.d, w.w, w.ld, w.rows)
		for _, level := range cpu.Levels()[1:] {
			got, out := clone(w.w), clone(w.acc)
			For(level).QK(got, w.ld, w.q, w.n, w.d, w.rows)
			For(level).PV(out, w.n, w.d, w.w, w.ld, w.rows)
			for i, x := range want { // terms of at most 2,000 each
				near(t, "score", got[i], float64(x), float64(w.d)*2000)
			}
			for i, x := range wantOut {
				near(t, "output", out[i], float64(x), float64(w.tokens)*2000)
			}
		}
	})
}
