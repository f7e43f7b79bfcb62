package model

import (
	"fmt"
	"time"

	"github.com/terse-llm/terse/attention"
)

// Forward runs the rows of b through the model: their K and V go into the
// pages, and the logits of the rows asked for come back as [len(b.Logits)]
// [VocabSize], valid until the next call with s. att must be made for the
// model's geometry and backend.
func (m *Model) Forward(att *attention.Runner, b *Batch, s *Scratch) ([]float32, Stats, error) {
	var st Stats
	if err := b.Check(&m.Config); err != nil {
		return nil, st, fmt.Errorf("cannot run the batch: %w", err)
	}
	s.fit(&m.Config, b, &m.rope)
	m.ops.Embed(s.x, m.embed, b.Tokens)
	for i := range m.layers {
		l := &m.layers[i]
		m.ops.RMSNorm(s.normed, s.x, l.attnNorm, m.Config.NormEps)
		if !m.attend(att, b, s, i, &st) {
			return nil, st, ErrAbandoned
		}
		if s.rows == 0 {
			break // nobody wants logits: the last layer was for its K and V
		}
		m.ops.Add(s.x, s.normed)
		m.ops.RMSNorm(s.normed, s.x, l.mlpNorm, m.Config.NormEps)
		if !m.mlp(b, s, l) {
			return nil, st, ErrAbandoned
		}
		m.ops.Add(s.x, s.normed)
	}
	if !m.logits(b, s) {
		return nil, st, ErrAbandoned
	}
	return s.logits, st, nil
}

// attend is the attention block of layer i, from s.normed to s.normed. In the
// last layer only the rows whose logits are wanted go on from their K and V. It
// reports false where nobody waits for the step any more.
func (m *Model) attend(att *attention.Runner, b *Batch, s *Scratch, i int, st *Stats) bool {
	l, c := &m.layers[i], &m.Config
	narrow := i == len(m.layers)-1 && len(b.Logits) < s.rows
	late := narrow && attention.Selects(b.Segments) // more rows have to attend
	narrow = narrow && !late
	s.ps = append(s.ps[:0], l.k.into(s.k), l.v.into(s.v))
	if !narrow {
		s.ps = append(s.ps, l.q.into(s.q))
	}
	if !m.linear(b, s, s.normed) {
		return false
	}
	m.turn(s, s.k, c.KVHeads, l.kNorm)

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

	if narrow {
		if s.narrow(c, b); s.rows == 0 {
			return true
		}
		s.ps = append(s.ps[:0], l.q.into(s.q))
		if !m.linear(b, s, s.normed) {
			return false
		}
	}
	m.turn(s, s.q, c.Heads, l.qNorm)
	start = time.Now()
	if !m.attention(att, b, s, i) {
		return false
	}
	st.Attend += time.Since(start)
	if b.AfterAttend != nil {
		b.AfterAttend(i)
	}
	s.ps = append(s.ps[:0], l.out.into(s.normed))
	if !m.linear(b, s, s.attended) {
		return false
	}
	if late {
		s.narrow(c, b)
	}
	return true
}

// turn is the norm of heads, where the model has one, and their rotation.
func (m *Model) turn(s *Scratch, x []float32, heads int, norm []float32) {
	if m.Config.QKNorm {
		m.ops.RMSNorm(x, x, norm, m.Config.NormEps)
	}
	m.ops.RoPE(x, heads, m.Config.HeadDim, &s.angles)
}

// mlp is down(silu(gate(x))·up(x)), from s.normed to s.normed; false where nobody
// waits for the step any more.
func (m *Model) mlp(b *Batch, s *Scratch, l *layer) bool {
	s.ps = append(s.ps[:0], l.gate.into(s.gate), l.up.into(s.up))
	if !m.linear(b, s, s.normed) {
		return false
	}
	m.ops.SwiGLU(s.gate, s.up)
	s.ps = append(s.ps[:0], l.down.into(s.normed))
	return m.linear(b, s, s.gate)
}

// logits are the final norm and the output embedding of the rows that are left, in
// s.logits; false where nobody waits for the step any more.
func (m *Model) logits(b *Batch, s *Scratch) bool {
	s.logits = resize(s.logits, s.rows*m.Config.VocabSize)
	if s.rows == 0 {
		return true
	}
	m.ops.RMSNorm(s.x, s.x, m.norm, m.Config.NormEps)
	s.ps = append(s.ps[:0], m.head.into(s.logits))
	if !m.linear(b, s, s.x) {
		return false
	}
	s.logits = s.logits[:s.rows*m.Config.VocabSize]
	return true
}
