package cuda

import (
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/tensor"
)

// cuBLASLt's products are those of the float64 formula, up to the rounding of
// their operands, which are float16 here.
func TestLinear(t *testing.T) {
	on(t, func(c *Context, m Module) {
		version, err := c.OpenBLAS(blasDirs(t)...)
		ok(t, err)
		t.Logf("cuBLASLt %d", version)
		r := rand.New(rand.NewPCG(1, 4))
		for _, s := range []struct{ rows, in, out int }{{1, 256, 512}, {7, 128, 64}, {64, 1024, 264}} {
			half := func(n int) (mem Ptr, x []float64) {
				b := make([]byte, 2*n)
				for i := range n {
					tensor.PutF16(b, i, float32(r.NormFloat64()))
					x = append(x, float64(tensor.GetF16(b, i)))
				}
				mem, err := c.Alloc(len(b))
				ok(t, err)
				ok(t, c.Upload(mem, b))
				return mem, x
			}
			xMem, x := half(s.rows * s.in)
			wMem, w := half(s.out * s.in)
			out := poison(4 * s.rows * s.out)
			yMem, err := c.Alloc(len(out))
			ok(t, err)
			ok(t, c.Upload(yMem, out))
			ok(t, c.Linear(yMem, xMem, wMem, s.rows, s.in, s.out, F16, F32, 0, 0))
			ok(t, c.Download(out, yMem))
			want := make([]float64, s.rows*s.out)
			for i := range want {
				for k := range s.in {
					want[i] += x[i/s.out*s.in+k] * w[i%s.out*s.in+k]
				}
			}
			if e := relative(floats(out), want); !(e < 1e-4) {
				t.Errorf("%+v: relative error %g", s, e)
			}
			for _, p := range []Ptr{xMem, wMem, yMem} {
				ok(t, c.Free(p))
			}
		}
	})
}
