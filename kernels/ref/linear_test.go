package ref

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

func random(rng *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return x
}

// randomMatrix is random weights of type dt and the values they really hold.
func randomMatrix(rng *rand.Rand, dt tensor.DType, out, in int) (tensor.Tensor, []float32) {
	w := tensor.Tensor{Name: "w", DType: dt, Shape: []int{out, in}, Data: make([]byte, dt.RowBytes(out*in))}
	blocks.Quantize(w.Data, dt, random(rng, out*in))
	values := make([]float32, out*in)
	blocks.Dequantize(values, dt, w.Data)
	return w, values
}

func project(o *Ops, dst, x []float32, rows int, w tensor.Tensor, bias []float32) {
	o.Linear(x, rows, []kernels.Projection{{Dst: dst, W: o.Pack(w), Bias: bias}})
}

// Linear agrees with the triple loop in float64 at sizes around its tiles,
// panels and jobs. A sum of n products in float32 is off by at most about
// n·2⁻²⁴·Σ|x·w| in theory; sqrt(n) of that in practice, with room.
func TestLinear(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	f := func(dt tensor.DType, out, in, rows int, withBias bool) {
		t.Helper()
		w, values := randomMatrix(rng, dt, out, in)
		x := random(rng, rows*in)
		var bias []float32
		if withBias {
			bias = random(rng, out)
		}
		dst := slices.Repeat([]float32{float32(math.NaN())}, rows*out)
		project(New(3), dst, x, rows, w, bias)
		for r := range rows {
			for o := range out {
				var want, size float64
				for i := range in {
					p := float64(x[r*in+i]) * float64(values[o*in+i])
					want, size = want+p, size+math.Abs(p)
				}
				if withBias {
					want, size = want+float64(bias[o]), size+math.Abs(float64(bias[o]))
				}
				bound := 4 * math.Sqrt(float64(in)) / (1 << 24) * size
				if got := float64(dst[r*out+o]); !(math.Abs(got-want) <= bound) {
					t.Fatalf("%v [%d,%d] of %d rows: [%d][%d] = %g, want %g ± %g", dt, out, in, rows, r, o, got, want, bound)
				}
			}
		}
	}
	for _, out := range []int{1, 3, 4, 5, 31, 33, 67} {
		f(tensor.F32, out, 3, 2, out%2 == 0)
		f(tensor.BF16, out, 513, 3, true)
		f(tensor.F16, out, 511, 1, false)
	}
	f(tensor.BF16, 6, 1, 1, true)
	f(tensor.F32, 5, 1025, 7, false)
	for _, dt := range []tensor.DType{tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K} {
		f(dt, 9, 256, 2, true)
		f(dt, 5, 768, 1, false)
		f(dt, 4, 1280, 3, false)
	}
}

// A row's result has the same bits whatever else is in the batch and however
// many cores there are: chunked prefill relies on it.
func TestLinearIgnoresTheBatch(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 1))
	const out, in, rows = 37, 1100, 9
	w, _ := randomMatrix(rng, tensor.F32, out, in)
	x := random(rng, rows*in)
	all := make([]float32, rows*out)
	project(New(2), all, x, rows, w, nil)
	for r := range rows {
		one := make([]float32, out)
		project(New(1), one, x[r*in:(r+1)*in], 1, w, nil)
		if !slices.Equal(one, all[r*out:(r+1)*out]) {
			t.Fatalf("row %d differs when it is computed alone", r)
		}
	}
}

// widen is blocks.Dequantize, at lengths around its steps.
func TestWiden(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for _, dt := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16} {
		for n := range 19 {
			src := make([]byte, dt.RowBytes(n))
			for i := range src {
				src[i] = byte(rng.Uint32())
			}
			got, want := make([]float32, n), make([]float32, n)
			widen(got, dt, src)
			blocks.Dequantize(want, dt, src)
			for i := range want {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("%v, %d elements: %v, want %v", dt, n, got, want)
				}
			}
		}
	}
}

func TestLinearRefusesWrongSizes(t *testing.T) {
	w, _ := randomMatrix(rand.New(rand.NewPCG(4, 1)), tensor.F32, 4, 3)
	f := func(dst, x, bias int) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Fatalf("dst %d, x %d, bias %d for 2 rows of [4,3] went through", dst, x, bias)
			}
		}()
		b := make([]float32, bias)
		if bias == 0 {
			b = nil
		}
		project(New(1), make([]float32, dst), make([]float32, x), 2, w, b)
	}
	f(7, 6, 0)
	f(8, 5, 0)
	f(8, 6, 3)
}
