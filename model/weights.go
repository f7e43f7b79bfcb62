package model

import (
	"errors"
	"fmt"
	"slices"

	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
	"github.com/terse-llm/terse/weights"
)

// Weights are a model's tensors, as its files have them. Matrices are [out, in]
// views of the Source, which must stay open; norms and biases are widened to
// float32, and nil where the model has none.
type Weights struct {
	Config Config
	Embed  tensor.Tensor // [VocabSize][Hidden]
	Layers []LayerWeights
	Norm   []float32     // [Hidden]
	Head   tensor.Tensor // [VocabSize][Hidden]; Embed where they are tied

	rope frequencies
}

// LayerWeights are one layer's.
type LayerWeights struct {
	AttnNorm     []float32 // [Hidden]
	Q, K, V, Out Projection
	QNorm, KNorm []float32 // [HeadDim]
	MLPNorm      []float32 // [Hidden]
	Gate, Up     Projection
	Down         Projection
}

// Projection is a matrix with its bias ([out]).
type Projection struct {
	W    tensor.Tensor
	Bias []float32
}

// Find finds c's tensors in src by name and checks their shapes.
func Find(c Config, src *weights.Source) (*Weights, error) {
	if c.layout == 0 {
		return nil, errors.New("BUG: a configuration that no file was parsed for")
	}
	b := &finder{c: c, src: src}
	w := &Weights{Config: c, Embed: b.matrix(partEmbed, 0, c.VocabSize, c.Hidden)}
	for i := 0; i < c.Layers && b.err == nil; i++ {
		w.Layers = append(w.Layers, b.layer(i))
	}
	w.Norm = b.vector(partNorm, 0, ".weight", c.Hidden)
	if w.Head = w.Embed; !c.Tied {
		w.Head = b.matrix(partHead, 0, c.VocabSize, c.Hidden)
	}
	w.rope = c.Rotary.frequencies(b.ropeDivisors())
	if b.err != nil {
		return nil, fmt.Errorf("cannot bind the model's weights: %w", b.err)
	}
	return w, nil
}

// Synthetic are weights for benchmarks: c's shape with matrices that matrix gives,
// and norms that scale by one. c needs no file; it is plain: no biases, no QK-norm.
func Synthetic(c Config, matrix func(out, in int) tensor.Tensor) *Weights {
	ones := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = 1
		}
		return x
	}
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	w := &Weights{Config: c, Embed: matrix(c.VocabSize, c.Hidden), Norm: ones(c.Hidden), rope: c.Rotary.frequencies(nil)}
	for range c.Layers {
		w.Layers = append(w.Layers, LayerWeights{
			AttnNorm: ones(c.Hidden), MLPNorm: ones(c.Hidden),
			Q: Projection{W: matrix(q, c.Hidden)}, K: Projection{W: matrix(kv, c.Hidden)}, V: Projection{W: matrix(kv, c.Hidden)},
			Out: Projection{W: matrix(c.Hidden, q)}, Gate: Projection{W: matrix(c.Intermediate, c.Hidden)},
			Up: Projection{W: matrix(c.Intermediate, c.Hidden)}, Down: Projection{W: matrix(c.Hidden, c.Intermediate)},
		})
	}
	if w.Head = w.Embed; !c.Tied {
		w.Head = matrix(c.VocabSize, c.Hidden)
	}
	return w
}

// Angles fills the cosines and sines ([Rotary.Dim/2]) of one position.
func (w *Weights) Angles(cos, sin []float32, pos int) { w.rope.angles(cos, sin, pos) }

// finder looks tensors up and keeps the first error.
type finder struct {
	c   Config
	src *weights.Source
	err error
}

func (b *finder) layer(i int) LayerWeights {
	c := b.c
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	l := LayerWeights{
		AttnNorm: b.vector(partAttnNorm, i, ".weight", c.Hidden),
		Q:        b.projection(c.QKVBias, partQ, i, q, c.Hidden),
		K:        b.projection(c.QKVBias, partK, i, kv, c.Hidden),
		V:        b.projection(c.QKVBias, partV, i, kv, c.Hidden),
		Out:      b.projection(c.OutputBias, partOut, i, c.Hidden, q),
		MLPNorm:  b.vector(partMLPNorm, i, ".weight", c.Hidden),
		Gate:     b.projection(c.MLPBias, partGate, i, c.Intermediate, c.Hidden),
		Up:       b.projection(c.MLPBias, partUp, i, c.Intermediate, c.Hidden),
		Down:     b.projection(c.MLPBias, partDown, i, c.Hidden, c.Intermediate),
	}
	if c.QKNorm {
		l.QNorm = b.vector(partQNorm, i, ".weight", c.HeadDim)
		l.KNorm = b.vector(partKNorm, i, ".weight", c.HeadDim)
	}
	return l
}

func (b *finder) projection(biased bool, p part, layer, out, in int) Projection {
	l := Projection{W: b.matrix(p, layer, out, in)}
	if biased {
		l.Bias = b.vector(p, layer, ".bias", out)
	}
	return l
}

func (b *finder) matrix(p part, layer, out, in int) tensor.Tensor {
	return b.tensor(p, layer, ".weight", out, in)
}

func (b *finder) vector(p part, layer int, suffix string, n int) []float32 {
	t := b.tensor(p, layer, suffix, n)
	if b.err != nil {
		return nil
	}
	v := make([]float32, n)
	blocks.Dequantize(v, t.DType, t.Data)
	return v
}

func (b *finder) tensor(p part, layer int, suffix string, dims ...int) tensor.Tensor {
	if b.err != nil {
		return tensor.Tensor{}
	}
	t, err := b.src.Expect(b.c.layout.name(p, layer, suffix), dims...)
	b.err = err
	return t
}

// ropeDivisors are the factors that converters write for Llama 3.1's scaling,
// nil where there are none.
func (b *finder) ropeDivisors() []float32 {
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
