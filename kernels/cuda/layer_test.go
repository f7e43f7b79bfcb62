package cuda

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/tensor"
)

// lab puts numbers on the device and takes results back.
type lab struct {
	t     testing.TB
	c     *Context
	r     *rand.Rand
	owned []Ptr
}

func (l *lab) bytes(b []byte) Ptr {
	p, err := l.c.Alloc(len(b))
	ok(l.t, err)
	ok(l.t, l.c.Upload(p, b))
	l.owned = append(l.owned, p)
	return p
}

func (l *lab) normal(n int) (Ptr, []float32) {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(l.r.NormFloat64())
	}
	return l.bytes(bytesOf(x)), x
}

func (l *lab) back(p Ptr, n int) []byte {
	b := make([]byte, n)
	ok(l.t, l.c.Download(b, p))
	return b
}

func (l *lab) close() {
	for _, p := range l.owned {
		ok(l.t, l.c.Free(p))
	}
	l.owned = nil
}

// products widens what a matrix product would read.
func products(b []byte, kind DType) []float32 {
	x := make([]float32, len(b)/2)
	for i := range x {
		if kind == BF16 {
			x[i] = tensor.BF16ToF32(binary.LittleEndian.Uint16(b[2*i:]))
		} else {
			x[i] = tensor.GetF16(b, i)
		}
	}
	return x
}

// The kernels between the products compute the formulas of kernels.Ops, rounded
// once to what the products read.
func TestLayer(t *testing.T) {
	on(t, func(c *Context, m Module) {
		for _, kind := range []DType{F16, BF16} {
			l, err := c.NewLayer(m, kind)
			ok(t, err)
			for _, dim := range []int{64, 300, 1024} {
				lab := &lab{t: t, c: c, r: rand.New(rand.NewPCG(uint64(dim), 8))}
				checkNorm(lab, l, kind, dim)
				checkGate(lab, l, kind, dim)
				lab.close()
			}
		}
		l, err := c.NewLayer(m, F16)
		ok(t, err)
		lab := &lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 8))}
		checkEmbed(lab, l)
		checkArgmax(lab, l)
		lab.close()
	})
}

// half is the rounding of F16 or BF16, relative.
func half(kind DType) float64 { return map[DType]float64{F16: 5e-4, BF16: 4e-3}[kind] }

func checkNorm(l *lab, k *Layer, kind DType, dim int) {
	const rows = 3
	x, xs := l.normal(rows * dim)
	add, adds := l.normal(rows * dim)
	weight, weights := l.normal(dim)
	out := l.bytes(poison(2 * rows * dim))
	ok(l.t, l.c.RMSNorm(k, out, x, add, weight, rows, dim, 1e-5, 0))
	want := make([]float64, rows*dim)
	for row := range rows {
		sum := 0.0
		for i := range dim {
			v := float64(xs[row*dim+i]) + float64(adds[row*dim+i])
			want[row*dim+i] = v
			sum += v * v
		}
		for i := range dim {
			want[row*dim+i] *= float64(weights[i]) / math.Sqrt(sum/float64(dim)+1e-5)
		}
	}
	if e := relative(products(l.back(out, 2*rows*dim), kind), want); !(e < half(kind)) {
		l.t.Errorf("RMSNorm, dim %d: relative error %g", dim, e)
	}
	for i, v := range floats(l.back(x, 4*rows*dim)) {
		if v != xs[i]+adds[i] {
			l.t.Errorf("RMSNorm, dim %d: residual %d is %g", dim, i, v)
			return
		}
	}
}

func checkGate(l *lab, k *Layer, kind DType, dim int) {
	const rows = 3
	both, x := l.normal(rows * 2 * dim) // gate and up side by side
	out := l.bytes(poison(2 * rows * dim))
	ok(l.t, l.c.SwiGLU(k, out, both, both+Ptr(4*dim), rows, dim, 2*dim, 0))
	want := make([]float64, rows*dim)
	for i := range want {
		g, up := float64(x[i/dim*2*dim+i%dim]), float64(x[i/dim*2*dim+dim+i%dim])
		want[i] = g / (1 + math.Exp(-g)) * up
	}
	if e := relative(products(l.back(out, 2*rows*dim), kind), want); !(e < half(kind)) {
		l.t.Errorf("SwiGLU, dim %d: relative error %g", dim, e)
	}
}

func checkEmbed(l *lab, k *Layer) {
	const vocabulary, dim = 11, 70
	_, x := l.normal(vocabulary * dim)
	ids := []int32{3, 0, 10, 3}
	for kind, size := range map[DType]int{F16: 2, BF16: 2, F32: 4} {
		table := make([]byte, size*len(x))
		want := make([]float32, len(x))
		for i, v := range x {
			switch kind {
			case F16:
				tensor.PutF16(table, i, v)
				want[i] = tensor.GetF16(table, i)
			case BF16:
				binary.LittleEndian.PutUint16(table[2*i:], tensor.F32ToBF16(v))
				want[i] = tensor.BF16ToF32(tensor.F32ToBF16(v))
			case F32:
				binary.LittleEndian.PutUint32(table[4*i:], math.Float32bits(v))
				want[i] = v
			}
		}
		out := l.bytes(poison(4 * len(ids) * dim))
		ok(l.t, l.c.Embed(k, out, l.bytes(table), l.bytes(bytesOf(ids)), len(ids), dim, kind, 0))
		for i, v := range floats(l.back(out, 4*len(ids)*dim)) {
			if v != want[int(ids[i/dim])*dim+i%dim] {
				l.t.Errorf("Embed, type %d: row %d channel %d is %g", kind, i/dim, i%dim, v)
				return
			}
		}
	}
}

func checkArgmax(l *lab, k *Layer) {
	const rows, n = 6, 1000
	_, x := l.normal(rows * n)
	x[0*n+999], x[1*n+0] = 9, 9
	x[2*n+500], x[2*n+244], x[2*n+756] = 9, 9, 9 // the first of equals
	for i := range n {
		x[3*n+i], x[4*n+i] = float32(math.NaN()), float32(math.Inf(-1))
	}
	x[3*n+7] = -5
	out := l.bytes(poison(4 * rows))
	ok(l.t, l.c.Argmax(k, out, l.bytes(bytesOf(x)), rows, n, 0))
	b := l.back(out, 4*rows)
	best := 0
	for i := range n {
		if x[5*n+i] > x[5*n+best] {
			best = i
		}
	}
	for row, want := range []int{999, 0, 244, 7, 0, best} {
		if got := int(binary.LittleEndian.Uint32(b[4*row:])); got != want {
			l.t.Errorf("Argmax of row %d is %d, want %d", row, got, want)
		}
	}
}
