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

// fewCase is a product of few rows and what it must give.
type fewCase struct {
	*lab
	k             *Few
	kind          DType
	rows, in, out int
	x, w          Ptr
	xs, ws        []float64
}

func (f *fewCase) dot(xs []float64, row, o int) (sum float64) {
	for i := range f.in {
		sum += xs[row*f.in+i] * f.ws[o*f.in+i]
	}
	return sum
}

// plain is x·Wᵀ of rows xs.
func (f *fewCase) plain(xs []float64) []float64 {
	y := make([]float64, f.rows*f.out)
	for i := range y {
		y[i] = f.dot(xs, i/f.out, i%f.out)
	}
	return y
}

// same reports what differs from a product's float64 formula.
func (f *fewCase) same(what string, got []float32, want []float64, bound float64) {
	f.t.Helper()
	if e := relative(got, want); !(e < bound) {
		f.t.Errorf("%s, type %d, %d rows of %d, %d out: relative error %g", what, f.kind, f.rows, f.in, f.out, e)
	}
}

func (f *fewCase) product(y Ptr) Product {
	return Product{W: f.w, Rows: f.rows, In: f.in, Out: f.out, Y: y}
}

// Products of few rows are the float64 formula's, and a row's do not depend on the
// others.
func TestFew(t *testing.T) {
	on(t, func(c *Context, m Module) {
		for _, kind := range []DType{F16, BF16} {
			k, err := c.NewFew(m, kind, 64)
			ok(t, err)
			for _, s := range []struct{ rows, in, out int }{{1, 32, 16}, {8, 288, 40}, {3, 1024, 17}, {5, 1312, 150}} {
				f := fewCase{lab: &lab{t: t, c: c, r: rand.New(rand.NewPCG(uint64(s.in), 5))}, k: k, kind: kind, rows: s.rows, in: s.in, out: s.out}
				f.x, f.xs = f.sixteen(s.rows*s.in, kind, 1)
				f.w, f.ws = f.sixteen(2*s.out*s.in, kind, 1/math.Sqrt(float64(s.in)))
				f.check()
				f.close()
			}
		}
	})
}

func (f *fewCase) check() {
	t, c, k, n := f.t, f.c, f.k, f.rows*f.out
	y, g := f.bytes(poison(4*n)), f.bytes(poison(2*n))
	a := f.product(y)
	ok(t, c.Few(k, a, f.x, 0))
	all, plain := f.back(y, 4*n), f.plain(f.xs)
	f.same("plain", floats(all), plain, 1e-5)
	a.Gated = g
	ok(t, c.Few(k, a, f.x, 0))
	gated := make([]float64, n)
	for i := range gated {
		gated[i] = plain[i] / (1 + math.Exp(-plain[i])) * f.dot(f.xs, i/f.out, f.out+i%f.out)
	}
	f.same("gated", products(f.back(g, 2*n), f.kind), gated, half(f.kind))
	sum, sums := f.normal(n)
	a = f.product(sum)
	a.Add = true
	ok(t, c.Few(k, a, f.x, 0))
	for i := range plain {
		plain[i] += float64(sums[i])
	}
	f.same("added", floats(f.back(sum, 4*n)), plain, 1e-5)
	last := f.rows - 1
	a = f.product(y)
	a.Rows = 1
	ok(t, c.Few(k, a, f.x+Ptr(2*last*f.in), 0))
	if string(f.back(y, 4*f.out)) != string(all[4*last*f.out:]) {
		t.Errorf("%d rows of %d, type %d: a row alone gives something else", f.rows, f.in, f.kind)
	}
}

// Rows that a product makes by itself are those of the kernels that make them alone.
func TestFewMakes(t *testing.T) {
	on(t, func(c *Context, m Module) {
		r := rand.New(rand.NewPCG(4, 12))
		for _, kind := range []DType{F16, BF16} {
			for _, dim := range []int{64, 128} {
				tc := newTurnCase(t, r, dim)
				tn, err := c.NewTurner(m, tc.g, tc.tf, tc.heads, kind)
				ok(t, err)
				k, err := c.NewFew(m, kind, dim)
				ok(t, err)
				layer, err := c.NewLayer(m, kind)
				ok(t, err)
				for _, rows := range []int{1, 2, 7} {
					f := fewCase{lab: &lab{t: t, c: c, r: r}, k: k, kind: kind, rows: rows, in: tc.heads * dim, out: 70}
					f.w, f.ws = f.sixteen(f.out*f.in, kind, 1/math.Sqrt(float64(f.in)))
					f.checkMade(tn, layer)
					f.close()
				}
				ok(t, c.CloseTurner(tn))
			}
		}
	})
}

func (f *fewCase) checkMade(tn *Turner, layer *Layer) {
	const eps, stride = 1e-5, 3 // rows of the stream: every third
	t, c, k, n := f.t, f.c, f.k, f.rows*f.out
	x, _ := f.normal(stride * f.rows * f.in)
	weight, _ := f.normal(f.in)
	made, y := f.bytes(poison(2*f.rows*f.in)), f.bytes(poison(4*n))
	var which []int32
	for i := range f.rows {
		which = append(which, int32(stride*i))
	}
	rows := f.bytes(bytesOf(which))
	ok(t, c.RMSNormOf(layer, made, x, 0, weight, rows, f.rows, f.in, eps, 0))
	ok(t, c.FewNormed(k, f.product(y), x, weight, rows, eps, 0))
	// the norm's sum of squares has another order: its last bit may differ
	f.same("normed", floats(f.back(y, 4*n)), f.plain(widened(products(f.back(made, 2*f.rows*f.in), f.kind))), half(f.kind)/4)
	all := f.back(y, 4*n)
	a := f.product(y)
	a.Rows = 1
	ok(t, c.FewNormed(k, a, x+Ptr(4*stride*(f.rows-1)*f.in), weight, 0, eps, 0))
	if string(f.back(y, 4*f.out)) != string(all[4*(n-f.out):]) {
		t.Errorf("normed, %d rows of %d, type %d: a row alone gives something else", f.rows, f.in, f.kind)
	}
	ok(t, c.Leave(tn, 1, made, x, f.rows, 0))
	ok(t, c.FewLeft(k, f.product(y), tn, 1, x, 0))
	f.same("left", floats(f.back(y, 4*n)), f.plain(widened(products(f.back(made, 2*f.rows*f.in), f.kind))), 1e-5)
}

// TestFewTable times products of few rows beside cuBLASLt's, in the shapes of
// Llama-3.1-8B, and what reading the weights takes.
func TestFewTable(t *testing.T) {
	needTable(t)
	on(t, func(c *Context, m Module) {
		_, err := c.OpenBLAS(blasDirs(t)...)
		ok(t, err)
		b := newBench(t, c, m)
		k, err := c.NewFew(m, BF16, 128)
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
			stream, _ := l.normal(8 * s.in)
			y := l.bytes(make([]byte, 4*32*s.out))
			line := ""
			for _, rows := range []int{1, 8, 24} {
				blas := b.median(t, 31, func() error { return c.Linear(y, x, all, rows, s.in, s.out, BF16, F32, 0, 0) })
				line += fmt.Sprintf("  %d rows: cuBLASLt %.1f", rows, blas)
				if k.Takes(rows, s.in) {
					line += fmt.Sprintf(", ours %.1f", b.median(t, 31, func() error { return c.Few(k, Product{W: all, Rows: rows, In: s.in, Out: s.out, Y: y}, x, 0) }))
				}
				if k.Takes(rows, s.in) && rows <= 8 {
					line += fmt.Sprintf(", with a norm %.1f", b.median(t, 31, func() error {
						return c.FewNormed(k, Product{W: all, Rows: rows, In: s.in, Out: s.out, Y: y}, stream, stream, 0, 1e-5, 0)
					}))
				}
			}
			t.Logf("%-12s reading %.1f µs;%s", s.name, float64(2*s.in*s.out)/4.5e6, line)
			ok(t, c.Free(all))
			l.close()
		}
	})
}
