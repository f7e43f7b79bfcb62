package model

import (
	"errors"
	"fmt"
	"slices"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
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

// Bind finds c's tensors in src by name, checks their shapes and has ops prepare
// the matrices, which takes seconds where they are many. Norms and biases are
// widened to float32.
func Bind(c Config, src *weights.Source, ops kernels.Ops) (*Model, error) {
	if c.layout == 0 {
		return nil, errors.New("BUG: a configuration that no file was parsed for")
	}
	b := &binder{c: c, src: src, ops: ops}
	m := &Model{Config: c, ops: ops}
	m.embed = b.tensor(partEmbed, 0, ".weight", c.VocabSize, c.Hidden)
	for i := 0; i < c.Layers && b.err == nil; i++ {
		m.layers = append(m.layers, b.layer(i))
	}
	m.norm = b.vector(partNorm, 0, ".weight", c.Hidden)
	head := partHead
	if c.Tied {
		head = partEmbed
	}
	m.head = b.matrix(head, 0, c.VocabSize, c.Hidden)
	m.rope = c.Rotary.frequencies(b.ropeDivisors())
	if b.err != nil {
		return nil, fmt.Errorf("cannot bind the model's weights: %w", b.err)
	}
	return m, nil
}

// Ops is the backend that the model was bound for.
func (m *Model) Ops() kernels.Ops { return m.ops }

// binder looks tensors up and keeps the first error.
type binder struct {
	c   Config
	src *weights.Source
	ops kernels.Ops
	err error
}

func (b *binder) layer(i int) layer {
	c := b.c
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	l := layer{
		attnNorm: b.vector(partAttnNorm, i, ".weight", c.Hidden),
		q:        b.projection(c.QKVBias, partQ, i, q, c.Hidden),
		k:        b.projection(c.QKVBias, partK, i, kv, c.Hidden),
		v:        b.projection(c.QKVBias, partV, i, kv, c.Hidden),
		out:      b.projection(c.OutputBias, partOut, i, c.Hidden, q),
		mlpNorm:  b.vector(partMLPNorm, i, ".weight", c.Hidden),
		gate:     b.projection(c.MLPBias, partGate, i, c.Intermediate, c.Hidden),
		up:       b.projection(c.MLPBias, partUp, i, c.Intermediate, c.Hidden),
		down:     b.projection(c.MLPBias, partDown, i, c.Hidden, c.Intermediate),
	}
	if c.QKNorm {
		l.qNorm = b.vector(partQNorm, i, ".weight", c.HeadDim)
		l.kNorm = b.vector(partKNorm, i, ".weight", c.HeadDim)
	}
	return l
}

func (b *binder) projection(biased bool, p part, layer, out, in int) linear {
	l := b.matrix(p, layer, out, in)
	if biased {
		l.bias = b.vector(p, layer, ".bias", out)
	}
	return l
}

func (b *binder) matrix(p part, layer, out, in int) linear {
	t := b.tensor(p, layer, ".weight", out, in)
	if b.err != nil {
		return linear{}
	}
	return linear{w: b.ops.Pack(t)}
}

func (b *binder) vector(p part, layer int, suffix string, n int) []float32 {
	t := b.tensor(p, layer, suffix, n)
	if b.err != nil {
		return nil
	}
	v := make([]float32, n)
	blocks.Dequantize(v, t.DType, t.Data)
	return v
}

func (b *binder) tensor(p part, layer int, suffix string, dims ...int) tensor.Tensor {
	if b.err != nil {
		return tensor.Tensor{}
	}
	t, err := b.src.Expect(b.c.layout.name(p, layer, suffix), dims...)
	b.err = err
	return t
}

// ropeDivisors are the factors that converters write for Llama 3.1's scaling,
// nil where there are none.
func (b *binder) ropeDivisors() []float32 {
	if b.c.layout != gguf || !slices.Contains(b.src.Names(), gguf.name(partRopeFreqs, 0, ".weight")) {
		return nil
	}
	d := b.vector(partRopeFreqs, 0, ".weight", b.c.Rotary.Dim/2)
	for i, f := range d {
		if !(f > 0) && b.err == nil {
			b.err = fmt.Errorf("tensor %s: element %d is %g, want a positive divisor", gguf.name(partRopeFreqs, 0, ".weight"), i, f)
		}
	}
	return d
}
