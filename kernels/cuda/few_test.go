package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/tensor"
)

// sixteen puts n random numbers of a type onto the device.
func (l *lab) sixteen(n int, kind DType, scale float64) (Ptr, []float64) {
	b, x := make([]byte, 2*n), make([]float64, n)
	for i := range n {
		v := float32(l.r.NormFloat64() * scale)
		if kind == BF16 {
			binary.LittleEndian.PutUint16(b[2*i:], tensor.F32ToBF16(v))
		} else {
			tensor.PutF16(b, i, v)
		}
	}
	for i, v := range products(b, kind) {
		x[i] = float64(v)
	}
	return l.bytes(b), x
}

// Products of few rows are the float64 formula's, and a row's do not depend on the
// others.
func TestFew(t *testing.T) {
	on(t, func(c *Context, m Module) {
		for _, kind := range []DType{F16, BF16} {
			k, err := c.NewFew(m, kind)
			ok(t, err)
			for _, s := range []struct{ rows, in, out int }{{1, 32, 16}, {8, 288, 40}, {3, 1024, 17}, {5, 1312, 9}} {
				l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(uint64(s.in), 5))}
				x, xs := l.sixteen(s.rows*s.in, kind, 1)
				w, ws := l.sixteen(2*s.out*s.in, kind, 1/math.Sqrt(float64(s.in)))
				dot := func(row, o int) (sum float64) {
					for i := range s.in {
						sum += xs[row*s.in+i] * ws[o*s.in+i]
					}
					return sum
				}
				plain, gated := make([]float64, s.rows*s.out), make([]float64, s.rows*s.out)
				for i := range plain {
					plain[i] = dot(i/s.out, i%s.out)
					gated[i] = plain[i] / (1 + math.Exp(-plain[i])) * dot(i/s.out, s.out+i%s.out)
				}
				y, g := l.bytes(poison(4*s.rows*s.out)), l.bytes(poison(2*s.rows*s.out))
				ok(t, c.Few(k, y, x, w, s.rows, s.in, s.out, 0))
				ok(t, c.FewGated(k, g, x, w, s.rows, s.in, s.out, 0))
				all := l.back(y, 4*s.rows*s.out)
				if e := relative(floats(all), plain); !(e < 1e-5) {
					t.Errorf("%+v, type %d: relative error %g", s, kind, e)
				}
				if e := relative(products(l.back(g, 2*s.rows*s.out), kind), gated); !(e < half(kind)) {
					t.Errorf("%+v gated, type %d: relative error %g", s, kind, e)
				}
				last := s.rows - 1
				ok(t, c.Few(k, y, x+Ptr(2*last*s.in), w, 1, s.in, s.out, 0))
				if string(l.back(y, 4*s.out)) != string(all[4*last*s.out:]) {
					t.Errorf("%+v, type %d: a row alone gives something else", s, kind)
				}
				l.close()
			}
		}
	})
}

// TestFewTable times products of few rows beside cuBLASLt's, in the shapes of
// Llama-3.1-8B, and what reading the weights takes.
func TestFewTable(t *testing.T) {
	if !*tableFlag || !*gpuFlag {
		t.Skip("times need a GPU: -gpu -table")
	}
	on(t, func(c *Context, m Module) {
		_, err := c.OpenBLAS(blasDirs(t)...)
		ok(t, err)
		b := newBench(t, c, m)
		k, err := c.NewFew(m, BF16)
		ok(t, err)
		for _, s := range []struct {
			name    string
			in, out int
		}{{"qkv", 4096, 6144}, {"out", 4096, 4096}, {"gate and up", 4096, 28672}, {"down", 14336, 4096}, {"head", 4096, 128256}} {
			l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 5))}
			w, _ := l.sixteen(1<<20, BF16, 1)
			all, err := c.Alloc(2 * s.in * s.out)
			ok(t, err)
			for at := 0; at < 2*s.in*s.out; at += 2 << 20 {
				ok(t, c.CopyAsync(all+Ptr(at), w, min(2<<20, 2*s.in*s.out-at), 0))
			}
			x, _ := l.sixteen(32*s.in, BF16, 1)
			y := l.bytes(make([]byte, 4*32*s.out))
			line := ""
			for _, rows := range []int{1, 8, 24} {
				blas := b.median(t, 31, func() error { return c.Linear(y, x, all, rows, s.in, s.out, BF16, F32, 0, 0) })
				line += fmt.Sprintf("  %d rows: cuBLASLt %.1f", rows, blas)
				if rows <= MaxFew {
					line += fmt.Sprintf(", ours %.1f", b.median(t, 31, func() error { return c.Few(k, y, x, all, rows, s.in, s.out, 0) }))
				}
			}
			t.Logf("%-12s reading %.1f µs;%s", s.name, float64(2*s.in*s.out)/4.5e6, line)
			ok(t, c.Free(all))
			l.close()
		}
	})
}
