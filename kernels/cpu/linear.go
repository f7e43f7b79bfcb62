package cpu

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/matmul"
	"github.com/terse-llm/terse/tensor"
)

// matrix is a packed weight matrix.
type matrix struct{ *matmul.Matrix }

func (m matrix) Shape() (out, in int) { return m.Out(), m.In() }

// packPanels is the panels of one piece of packing.
const packPanels = 16

// Pack copies w into the layout of the level's kernels, over the cores.
func (o *Ops) Pack(w tensor.Tensor) kernels.Matrix {
	m := o.matmul.NewMatrix(w)
	n := m.Panels()
	o.pool.do((n+packPanels-1)/packPanels, kernels.TaskFunc(func(i int) {
		m.Pack(i*packPanels, min(n, (i+1)*packPanels))
	}))
	return matrix{m}
}

// linear is one Linear: first the activations are prepared, once for all
// projections of a kind, then pieces of all projections' outputs are computed.
type linear struct {
	ops    *Ops
	x      []float32
	ps     []kernels.Projection
	kinds  [2]matmul.Activations
	pieces []piece
	phase  matmul.Kind
	multi  bool // multiplying: the second phase
}

// piece is the panels [lo, hi) of a projection.
type piece struct{ projection, lo, hi int }

// piecesPerCore is how finely outputs are cut: fine enough that a core that is
// late costs little.
const piecesPerCore = 6

// pieceProducts is the most products of one piece, some milliseconds of a core: so
// long it may take until a Linear that is given up returns. (A panel is never cut.)
const pieceProducts = 1 << 28

// Linear computes the projections of the same rows.
func (o *Ops) Linear(x []float32, rows int, ps []kernels.Projection) {
	if rows == 0 {
		return
	}
	l := o.linears.Get().(*linear)
	l.ops, l.x, l.ps, l.multi, l.pieces = o, x, ps, false, l.pieces[:0]
	prepared := [2]bool{}
	panels := 0
	for _, p := range ps {
		m := p.W.(matrix)
		panels += m.Panels()
		if k := m.Kind(); !prepared[k] {
			prepared[k] = true
			l.phase = k
			l.kinds[k].Reset(m.Matrix, rows)
			o.pool.do(l.kinds[k].Groups(), l)
		}
	}
	most := max(1, panels/(piecesPerCore*o.threads))
	for i, p := range ps {
		m := p.W.(matrix)
		n := m.Panels()
		step := max(1, min(most, pieceProducts*n/(rows*m.In()*m.Out())))
		for lo := 0; lo < n; lo += step {
			l.pieces = append(l.pieces, piece{i, lo, min(n, lo+step)})
		}
	}
	l.multi = true
	o.pool.until(o.stop, len(l.pieces), l)
	l.x, l.ps = nil, nil
	o.linears.Put(l)
}

// Do prepares group i of the activations, or multiplies piece i.
func (l *linear) Do(i int) {
	if !l.multi {
		l.kinds[l.phase].Prepare(l.x, i, i+1)
		return
	}
	c := l.pieces[i]
	p := &l.ps[c.projection]
	m := p.W.(matrix)
	s := l.ops.multiply.Get().(*matmul.Scratch)
	m.Multiply(p.Dst, m.Out(), &l.kinds[m.Kind()], c.lo, c.hi, p.Bias, s)
	l.ops.multiply.Put(s)
}
