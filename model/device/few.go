package device

import (
	"errors"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/model"
)

// few reports whether a step is of so few single rows that its time is that of
// reading the weights: then every launch counts.
func (r *Runner) few() bool {
	s, cfg, few := &r.step, &r.model.config, r.kernels.few
	for i := range r.model.layers {
		if l := &r.model.layers[i]; l.outBias != 0 || l.gateUpBias != 0 || l.downBias != 0 {
			return false
		}
	}
	return r.kernels.hack == nil && s.singles == s.rows && few.Takes(s.rows, cfg.Hidden) &&
		few.Takes(s.rows, cfg.Heads*cfg.HeadDim) && few.Takes(s.rows, cfg.Intermediate)
}

// fewLayers is layers for such a step: products make what they multiply by
// themselves, and add to the residual stream. Each kernel starts beside the end of
// the one before, and those of products begin to read their weights then.
func (r *Runner) fewLayers(c *cuda.Context, b *model.Batch) error {
	s, m, a, k := &r.step, r.model, &r.act, &r.kernels
	cfg := &m.config
	for i := range m.layers {
		if b.Abandoned() {
			return model.ErrAbandoned
		}
		l := &m.layers[i]
		qkv := cuda.Product{W: l.qkv, Rows: s.rows, In: cfg.Hidden, Out: (cfg.Heads + 2*cfg.KVHeads) * cfg.HeadDim, Y: a.qkv}
		if err := errors.Join(
			c.FewNormed(k.few, qkv, a.x, l.attnNorm, 0, cfg.NormEps, r.stream),
			c.Enter(k.turner, k.encoder, i, s.rows, r.turn(i), r.in.both(), r.stream), r.stage(c, i),
		); err != nil {
			return err
		}
		if i == len(m.layers)-1 && s.wanted == 0 {
			return nil // nobody wants logits: the last layer was for its K and V
		}
		gateUp := cuda.Product{W: l.gateUp, Rows: s.rows, In: cfg.Hidden, Out: cfg.Intermediate, Gated: a.gated}
		down := cuda.Product{W: l.down, Rows: s.rows, In: cfg.Intermediate, Out: cfg.Hidden, Y: a.x, Add: true}
		if err := errors.Join(
			r.attendSingles(c, i), r.fewOut(c, i),
			c.FewNormed(k.few, gateUp, a.x, l.mlpNorm, 0, cfg.NormEps, r.stream),
			c.Few(k.few, down, a.gated, r.stream),
		); err != nil {
			return err
		}
	}
	head := cuda.Product{W: m.head, Rows: s.wanted, In: cfg.Hidden, Out: cfg.VocabSize, Y: r.out.logits}
	return errors.Join(
		c.FewNormed(k.few, head, a.x, m.norm, r.in.wantedAt(), cfg.NormEps, r.stream),
		c.Argmax(k.layer, r.out.best, r.out.logits, s.wanted, cfg.VocabSize, r.stream))
}

// fewOut adds the product of attention's outputs to the residual stream. Blocks take
// them out of V's basis by themselves where that is little work.
func (r *Runner) fewOut(c *cuda.Context, i int) error {
	s, a, k, cfg := &r.step, &r.act, &r.kernels, &r.model.config
	out := cuda.Product{W: r.model.layers[i].out, Rows: s.rows, In: cfg.Heads * cfg.HeadDim, Out: cfg.Hidden, Y: a.x, Add: true}
	if s.rows <= 2 {
		return c.FewLeft(k.few, out, k.turner, i, a.attended, r.stream)
	}
	return errors.Join(c.Leave(k.turner, i, a.turned, a.attended, s.rows, r.stream), c.Few(k.few, out, a.turned, r.stream))
}
