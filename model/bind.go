package model

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/weights"
)

// Model is a configuration with its weights, prepared for one backend. It is
// immutable; the Source it was bound to must stay open.
type Model struct {
	Config Config

	ops    kernels.Ops
	embed  tensor.Tensor // [VocabSize][Hidden]
	layers []layer
	norm   []float32 // [Hidden]
	head   linear    // [VocabSize][Hidden]
	rope   frequencies
}

type layer struct {
	attnNorm     []float32 // [Hidden]
	q, k, v, out linear
	qNorm, kNorm []float32 // [HeadDim], nil without QK-norm
	mlpNorm      []float32 // [Hidden]
	gate, up     linear
	down         linear
}

// linear is one projection: w is [out][in], bias [out] or nil.
type linear struct {
	w    kernels.Matrix
	bias []float32
}

// into is the projection of some rows to dst.
func (l *linear) into(dst []float32) kernels.Projection {
	return kernels.Projection{Dst: dst, W: l.w, Bias: l.bias}
}

// Bind finds c's tensors in src (see [Find]) and has ops prepare the matrices,
// which takes seconds where they are many.
func Bind(c Config, src *weights.Source, ops kernels.Ops) (*Model, error) {
	w, err := Find(c, src)
	if err != nil {
		return nil, err
	}
	return w.Bind(ops), nil
}

// Bind has ops prepare the matrices.
func (w *Weights) Bind(ops kernels.Ops) *Model {
	pack := func(p Projection) linear { return linear{ops.Pack(p.W), p.Bias} }
	m := &Model{Config: w.Config, ops: ops, embed: w.Embed, norm: w.Norm, rope: w.rope, head: linear{w: ops.Pack(w.Head)}}
	for _, l := range w.Layers {
		m.layers = append(m.layers, layer{
			attnNorm: l.AttnNorm, q: pack(l.Q), k: pack(l.K), v: pack(l.V), out: pack(l.Out), qNorm: l.QNorm, kNorm: l.KNorm,
			mlpNorm: l.MLPNorm, gate: pack(l.Gate), up: pack(l.Up), down: pack(l.Down),
		})
	}
	return m
}

// Ops is the backend that the model was bound for.
func (m *Model) Ops() kernels.Ops { return m.ops }
