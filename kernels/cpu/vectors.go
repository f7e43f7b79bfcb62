package cpu

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/exact"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// vectors is element-wise work over runs of floats, cut for the cores.
type vectors struct {
	ops  *Ops
	what vectorOp
	n    int // items in all
	step int // of one piece

	x, y, weight   []float32
	eps            float32
	heads, headDim int
	angles         *kernels.Angles
	rotation       *quant.Rotation
	inverse        bool
}

type vectorOp uint8

const (
	opNorm vectorOp = iota
	opRoPE
	opSwiGLU
	opAdd
	opAddRows
	opRotate
)

// grain is the number of elements below which element-wise work is not worth
// another core.
const grain = 1 << 13

// spread does items [0, n), each of width elements, in pieces of at least grain
// elements.
func (o *Ops) spread(v vectors, n, width int) {
	if n == 0 {
		return
	}
	t := o.vectors.Get().(*vectors)
	*t = v
	t.ops, t.n = o, n
	t.step = max(1, grain/width, (n+4*o.threads-1)/(4*o.threads))
	o.pool.do((n+t.step-1)/t.step, t)
	*t = vectors{}
	o.vectors.Put(t)
}

// Do does piece i.
func (t *vectors) Do(i int) {
	lo, hi := i*t.step, min(t.n, (i+1)*t.step)
	k := t.ops.vec
	switch t.what {
	case opNorm:
		w := len(t.weight)
		k.RMSNorm(t.y[lo*w:hi*w], t.x[lo*w:hi*w], t.weight, t.eps)
	case opRoPE:
		w, a := t.heads*t.headDim, t.angles
		for r := lo; r < hi; r++ {
			p := r * a.Pairs
			k.RoPE(t.x[r*w:(r+1)*w], t.heads, t.headDim, a.Cos[p:p+a.Pairs], a.Sin[p:p+a.Pairs], a.Interleaved)
		}
	case opSwiGLU:
		k.SwiGLU(t.x[lo:hi], t.y[lo:hi])
	case opAdd:
		k.Add(t.x[lo:hi], t.y[lo:hi])
	case opAddRows:
		w := len(t.y)
		k.Add(t.x[lo*w:hi*w], t.y)
	case opRotate:
		d := len(t.rotation.Signs)
		k.Rotate(t.x[lo*d:hi*d], t.rotation, t.inverse)
	}
}

// RMSNorm computes dst[r] = x[r]/sqrt(mean(x[r]²)+eps)·weight; dst may be x.
func (o *Ops) RMSNorm(dst, x, weight []float32, eps float32) {
	o.spread(vectors{what: opNorm, y: dst, x: x, weight: weight, eps: eps}, len(x)/len(weight), len(weight))
}

// RoPE rotates every head of x ([rows][heads][headDim]) by its row's angles.
func (o *Ops) RoPE(x []float32, heads, headDim int, a *kernels.Angles) {
	o.spread(vectors{what: opRoPE, x: x, heads: heads, headDim: headDim, angles: a}, len(x)/(heads*headDim), heads*headDim)
}

// SwiGLU computes gate = silu(gate)·up in place.
func (o *Ops) SwiGLU(gate, up []float32) {
	o.spread(vectors{what: opSwiGLU, x: gate, y: up}, len(gate), 1)
}

// Add adds y to every run of len(y) elements of x.
func (o *Ops) Add(x, y []float32) {
	if len(x) == len(y) {
		o.spread(vectors{what: opAdd, x: x, y: y}, len(x), 1)
		return
	}
	o.spread(vectors{what: opAddRows, x: x, y: y}, len(x)/len(y), len(y))
}

// Rotate turns heads into the cache's basis or back.
func (o *Ops) Rotate(x []float32, r *quant.Rotation, inverse bool) {
	d := len(r.Signs)
	o.spread(vectors{what: opRotate, x: x, rotation: r, inverse: inverse}, len(x)/d, d)
}

// mapRows is the number of rows that a matrix of [Ops.Map] is read for at a time.
const mapRows = 16

// mapping is one Map, cut into one head of mapRows rows each.
type mapping struct {
	ops            *Ops
	x, m           []float32
	heads, d, rows int
	items, step    int
}

// Map multiplies every head of x with the matrix of its KV head, by the product of
// weights and exact rows: a matrix's rows are the tokens, a head's channels the
// weights.
func (o *Ops) Map(x []float32, heads, d int, m []float32) {
	if len(x) == 0 {
		return
	}
	t := o.mappings.Get().(*mapping)
	rows := len(x) / (heads * d)
	*t = mapping{ops: o, x: x, m: m, heads: heads, d: d, rows: rows, items: heads * ((rows + mapRows - 1) / mapRows)}
	t.step = max(1, 16*grain/(d*d*min(rows, mapRows)))
	o.pool.do((t.items+t.step-1)/t.step, t)
	*t = mapping{}
	o.mappings.Put(t)
}

// Do does piece i.
func (t *mapping) Do(i int) {
	s := t.ops.scratch.Get().(*attender)
	d, width := t.d, t.heads*t.d
	group := t.heads / (len(t.m) / (d * d))
	for item := i * t.step; item < min(t.items, (i+1)*t.step); item++ {
		head, row := item%t.heads, item/t.heads*mapRows
		n := min(mapRows, t.rows-row)
		s.exact.floats = grow(s.exact.floats, n*d)
		acc := s.exact.floats
		clear(acc)
		at := head / group * d * d
		x := t.x[row*width+head*d:]
		t.ops.exact.PV(acc, n, d, x, width, exact.Rows{Data: bytesOf(t.m[at : at+d*d]), Type: tensor.F32})
		for r := range n {
			copy(x[r*width:r*width+d], acc[r*d:])
		}
	}
	t.ops.scratch.Put(s)
}
