package cuda

import "fmt"

// The kernels of the rest of a layer (src/layer.cuh).
type (
	normParams struct {
		X, Add, Weight, Out, Rows Ptr
		Dim, Brain                int32
		Eps                       float32
		_                         int32
	}
	gateParams struct {
		Gate, Up, Out         Ptr
		Dim, Stride, Brain, N int32
	}
	embedParams struct {
		Table, IDs, Out Ptr
		Dim, Kind       int32
	}
	argmaxParams struct {
		X, Out Ptr
		N      int32
		_      int32
	}
)

// layerThreads are of a block, rowThreads of one that takes a whole row.
const (
	layerThreads = 256
	rowThreads   = 1024
	maxNorm      = 16 * rowThreads // numbers of a row that rms_norm takes
)

// Layer is the kernels between a layer's matrix products. The residual stream,
// queries, keys and values are float32; what products read has the weights' type,
// F16 or BF16.
type Layer struct {
	rmsNorm, swiglu, embed, argmax Function
	brain                          int32
}

// NewLayer finds the kernels; products is F16 or BF16.
func (c *Context) NewLayer(m Module, products DType) (*Layer, error) {
	l := new(Layer)
	switch products {
	case F16:
	case BF16:
		l.brain = 1
	default:
		return nil, fmt.Errorf("cannot feed matrix products of type %d; use F16 or BF16", products)
	}
	for _, k := range []struct {
		name string
		dst  *Function
	}{{"rms_norm", &l.rmsNorm}, {"swiglu", &l.swiglu}, {"embed", &l.embed}, {"argmax", &l.argmax}} {
		var err error
		if *k.dst, err = c.Function(m, k.name, 0); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func blocksOf(n int) [3]int { return [3]int{(n + layerThreads - 1) / layerThreads, 1, 1} }

// RMSNorm adds add (0: nothing) to x, rows of float32, and puts the norm of each
// row, times weight ([dim] float32), into out.
func (c *Context) RMSNorm(l *Layer, out, x, add, weight Ptr, rows, dim int, eps float32, s Stream) error {
	return c.RMSNormOf(l, out, x, add, weight, 0, rows, dim, eps, s)
}

// RMSNormOf is RMSNorm of some rows of x and add: which ([rows] int32; 0: all)
// names them, out has them side by side.
func (c *Context) RMSNormOf(l *Layer, out, x, add, weight, which Ptr, rows, dim int, eps float32, s Stream) error {
	p := normParams{X: x, Add: add, Weight: weight, Out: out, Rows: which, Dim: int32(dim), Brain: l.brain, Eps: eps}
	if dim > maxNorm {
		return fmt.Errorf("cannot normalise rows of %d numbers on the GPU, %d are the most", dim, maxNorm)
	}
	return c.Launch(l.rmsNorm, Shape{Grid: [3]int{rows, 1, 1}, Block: rowThreads, Shared: rowThreads / 32 * 4}, s, paramBytes(&p))
}

// SwiGLU puts silu(gate)·up into out ([rows][dim]); gate and up are float32 rows
// stride apart, as one product of both gives them.
func (c *Context) SwiGLU(l *Layer, out, gate, up Ptr, rows, dim, stride int, s Stream) error {
	p := gateParams{Gate: gate, Up: up, Out: out, Dim: int32(dim), Stride: int32(stride), Brain: l.brain, N: int32(rows * dim)}
	return c.Launch(l.swiglu, Shape{Grid: blocksOf(rows * dim), Block: layerThreads}, s, paramBytes(&p))
}

// Embed widens rows ids (int32) of table ([vocabulary][dim] of type kind) into out.
func (c *Context) Embed(l *Layer, out, table, ids Ptr, rows, dim int, kind DType, s Stream) error {
	p := embedParams{Table: table, IDs: ids, Out: out, Dim: int32(dim)}
	switch kind {
	case BF16:
		p.Kind = 1
	case F32:
		p.Kind = 2
	}
	return c.Launch(l.embed, Shape{Grid: [3]int{rows, 1, 1}, Block: layerThreads}, s, paramBytes(&p))
}

// Argmax puts the place of the first largest of n numbers of each row into out
// (int32).
func (c *Context) Argmax(l *Layer, out, x Ptr, rows, n int, s Stream) error {
	p := argmaxParams{X: x, Out: out, N: int32(n)}
	return c.Launch(l.argmax, Shape{Grid: [3]int{rows, 1, 1}, Block: rowThreads, Shared: rowThreads * 8, Early: true}, s, paramBytes(&p))
}
