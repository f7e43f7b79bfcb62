package model

import (
	"fmt"
	"time"

	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/kernels"
)

// Forward runs the rows of b through the model: their K and V go into the
// pages, and the logits of the rows asked for come back as [len(b.Logits)]
// [VocabSize], valid until the next call with s. att must be made for the
// model's geometry.
func (m *Model) Forward(ops kernels.Ops, att *attention.Runner, b *Batch, s *Scratch) ([]float32, Stats, error) {
	var st Stats
	if err := b.check(&m.Config); err != nil {
		return nil, st, fmt.Errorf("cannot run the batch: %w", err)
	}
	s.fit(&m.Config, b)
	ops.Embed(s.x, m.embed, b.Tokens)
	for i := range m.layers {
		l := &m.layers[i]
		ops.RMSNorm(s.normed, s.x, l.attnNorm, m.Config.NormEps)
		m.attend(ops, att, b, s, i, &st)
		add(ops, s.x, s.normed)
		ops.RMSNorm(s.normed, s.x, l.mlpNorm, m.Config.NormEps)
		m.mlp(ops, s, l)
		add(ops, s.x, s.normed)
	}
	return m.logits(ops, b, s), st, nil
}

// attend is the attention block of layer i, from s.normed to s.normed.
func (m *Model) attend(ops kernels.Ops, att *attention.Runner, b *Batch, s *Scratch, i int, st *Stats) {
	l, c, rows := &m.layers[i], &m.Config, len(b.Tokens)
	l.q.apply(ops, s.q, s.normed, rows)
	l.k.apply(ops, s.k, s.normed, rows)
	l.v.apply(ops, s.v, s.normed, rows)
	if c.QKNorm {
		ops.RMSNorm(s.q, s.q, l.qNorm, c.NormEps)
		ops.RMSNorm(s.k, s.k, l.kNorm, c.NormEps)
	}
	ops.RoPE(s.q, c.Heads, c.HeadDim, s.pos, m.rope)
	ops.RoPE(s.k, c.KVHeads, c.HeadDim, s.pos, m.rope)

	start := time.Now()
	kv := c.KVHeads * c.HeadDim
	for _, seg := range b.Segments {
		lo, hi := seg.Row*kv, (seg.Row+seg.Rows)*kv
		att.Append(seg.View, i, seg.Pos, s.k[lo:hi], s.v[lo:hi])
	}
	st.Quantise += time.Since(start)
	if b.AfterLayer != nil {
		b.AfterLayer(i)
	}

	att.Attend(i, b.Segments, s.q, s.attended)
	l.out.apply(ops, s.normed, s.attended, rows)
}

// mlp is down(silu(gate(x))·up(x)), from s.normed to s.normed.
func (m *Model) mlp(ops kernels.Ops, s *Scratch, l *layer) {
	rows := len(s.normed) / m.Config.Hidden
	l.gate.apply(ops, s.gate, s.normed, rows)
	l.up.apply(ops, s.up, s.normed, rows)
	ops.SwiGLU(s.gate, s.up)
	l.down.apply(ops, s.normed, s.gate, rows)
}

// logits are the final norm and the output embedding of the rows asked for.
func (m *Model) logits(ops kernels.Ops, b *Batch, s *Scratch) []float32 {
	n := m.Config.Hidden
	for i, row := range b.Logits {
		copy(s.picked[i*n:(i+1)*n], s.x[row*n:(row+1)*n])
	}
	if len(b.Logits) > 0 {
		ops.RMSNorm(s.picked, s.picked, m.norm, m.Config.NormEps)
		m.head.apply(ops, s.logits, s.picked, len(b.Logits))
	}
	return s.logits
}

func (l *linear) apply(ops kernels.Ops, dst, x []float32, rows int) {
	ops.Linear(dst, x, rows, l.w, l.bias)
}

// addGrain is the number of elements of one parallel piece of a residual sum.
const addGrain = 1 << 15

// add is the residual connection: x += y.
func add(ops kernels.Ops, x, y []float32) {
	ops.Parallel((len(x)+addGrain-1)/addGrain, func(i int) {
		lo, hi := i*addGrain, min(len(x), (i+1)*addGrain)
		a, b := x[lo:hi], y[lo:hi]
		for j := range a {
			a[j] += b[j]
		}
	})
}
