package ref

import (
	"math"
	"math/cmplx"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/tensor"
)

var _ kernels.Ops = (*Ops)(nil)

// near fails unless got is want within tol of want's size.
func near(t *testing.T, what string, got float32, want, tol float64) {
	t.Helper()
	if !(math.Abs(float64(got)-want) <= tol*max(1, math.Abs(want))) {
		t.Fatalf("%s: %g, want %g", what, got, want)
	}
}

func TestRMSNorm(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	f := func(rows, n int, eps float32) {
		t.Helper()
		x, weight := random(rng, rows*n), random(rng, n)
		dst := make([]float32, rows*n)
		New(2).RMSNorm(dst, x, weight, eps)
		for r := range rows {
			var mean float64
			for _, v := range x[r*n : (r+1)*n] {
				mean += float64(v) * float64(v) / float64(n)
			}
			for i := range n {
				want := float64(x[r*n+i]) / math.Sqrt(mean+float64(eps)) * float64(weight[i])
				near(t, "norm", dst[r*n+i], want, 1e-6)
			}
		}
		New(1).RMSNorm(x, x, weight, eps)
		if !slices.Equal(x, dst) {
			t.Fatal("in place differs")
		}
	}
	f(1, 1, 1e-5)
	f(3, 7, 1)
	f(300, 129, 1e-6)
	dst := make([]float32, 4)
	New(1).RMSNorm(dst, make([]float32, 4), []float32{1, 1, 1, 1}, 1e-5)
	if !slices.Equal(dst, make([]float32, 4)) {
		t.Fatalf("zeros became %v", dst)
	}
}

// A pair of channels is a complex number that is turned by pos·freq.
func TestRoPE(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	f := func(heads, headDim, pairs int, interleaved bool, scale float32, pos ...int) {
		t.Helper()
		x := random(rng, len(pos)*heads*headDim)
		before := slices.Clone(x)
		freqs := make([]float64, pairs)
		a := &kernels.Angles{Pairs: pairs, Interleaved: interleaved}
		for _, p := range pos {
			for i := range freqs {
				freqs[i] = math.Pow(10000, -float64(i)/float64(pairs))
				z := cmplx.Rect(float64(scale), float64(p)*freqs[i])
				a.Cos, a.Sin = append(a.Cos, float32(real(z))), append(a.Sin, float32(imag(z)))
			}
		}
		New(2).RoPE(x, heads, headDim, a)
		for r, p := range pos {
			for h := range heads {
				at := (r*heads + h) * headDim
				for i, freq := range freqs {
					a, b := at+i, at+i+pairs
					if interleaved {
						a, b = at+2*i, at+2*i+1
					}
					z := complex(float64(before[a]), float64(before[b]))
					z *= cmplx.Rect(float64(scale), float64(p)*freq)
					near(t, "rope", x[a], real(z), 1e-6)
					near(t, "rope", x[b], imag(z), 1e-6)
				}
				if !slices.Equal(x[at+2*pairs:at+headDim], before[at+2*pairs:at+headDim]) {
					t.Fatal("channels beyond the rotary dimension changed")
				}
			}
		}
	}
	for _, interleaved := range []bool{false, true} {
		f(1, 2, 1, interleaved, 1, 0, 1, 2)
		f(3, 64, 32, interleaved, 1, 5, 4, 8191)
		f(2, 80, 16, interleaved, 1.25, 100)
	}
}

func TestSwiGLU(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 4))
	f := func(gate []float32) {
		t.Helper()
		before, up := slices.Clone(gate), random(rng, len(gate))
		New(2).SwiGLU(gate, up)
		for i, g := range before {
			want := float64(g) * (1 + math.Tanh(float64(g)/2)) / 2 * float64(up[i])
			near(t, "swiglu", gate[i], want, 1e-6)
		}
	}
	f([]float32{0, 1, -1, 50, -50, 200, -200})
	f(random(rng, 3*grain+5))
	f(nil)
}

func TestEmbed(t *testing.T) {
	w, values := randomMatrix(rand.New(rand.NewPCG(1, 5)), tensor.Q8_0, 5, 64)
	dst := make([]float32, 3*64)
	New(2).Embed(dst, w, []int32{4, 0, 4})
	for i, row := range []int{4, 0, 4} {
		if !slices.Equal(dst[i*64:(i+1)*64], values[row*64:(row+1)*64]) {
			t.Fatalf("row %d is not row %d of the table", i, row)
		}
	}
}

// Every item runs once, however many there are.
func TestParallel(t *testing.T) {
	for _, threads := range []int{-1, 1, 2, 5} {
		for _, n := range []int{0, 1, 2, 5, 100} {
			counts := make([]atomic.Int32, n)
			New(threads).Parallel(n, kernels.TaskFunc(func(i int) { counts[i].Add(1) }))
			for i := range counts {
				if c := counts[i].Load(); c != 1 {
					t.Fatalf("%d threads, %d items: item %d ran %d times", threads, n, i, c)
				}
			}
		}
	}
	if got := New(0).Threads(); got != 1 {
		t.Fatalf("%d threads", got)
	}
}
