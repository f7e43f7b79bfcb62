package synthetic

import (
	"fmt"
	"slices"
	"strings"

	"github.com/terse-llm/terse/tensor"
)

// Shape is the dimensions of a Llama-family model.
type Shape struct {
	Name                    string
	Layers, Hidden, Inner   int // Inner is the width of the MLP
	Heads, KVHeads, HeadDim int
	Vocab                   int
	MaxContext              int
	RopeTheta               float32
	RopeDivisors            bool // Llama 3.1's long-context divisors, all of them 1
	Tied                    bool // one matrix is input and output embedding
	Words                   Words
}

// Words is the kind of a made-up vocabulary.
type Words uint8

// The kinds of vocabulary.
const (
	Scored Words = iota // SentencePiece's: tokens with scores, bytes as fallback
	Merged              // byte-level BPE: tokens and merges, Llama 3's specials
)

// Shapes are the shapes that have a name.
func Shapes() []Shape {
	return []Shape{
		{Name: "llama-3.2-1b", Layers: 16, Hidden: 2048, Inner: 8192, Heads: 32, KVHeads: 8, HeadDim: 64,
			Vocab: 128256, MaxContext: 131072, RopeTheta: 500000, RopeDivisors: true, Tied: true, Words: Merged},
		{Name: "llama-3.1-8b", Layers: 32, Hidden: 4096, Inner: 14336, Heads: 32, KVHeads: 8, HeadDim: 128,
			Vocab: 128256, MaxContext: 131072, RopeTheta: 500000, RopeDivisors: true, Words: Merged},
		// Two wide layers with little MLP: the time of a step is its attention.
		{Name: "kv-2layer", Layers: 2, Hidden: 4096, Inner: 1024, Heads: 32, KVHeads: 8, HeadDim: 128,
			Vocab: 32000, MaxContext: 131072, RopeTheta: 10000, Tied: true},
		{Name: "tiny", Layers: 2, Hidden: 256, Inner: 512, Heads: 4, KVHeads: 2, HeadDim: 64,
			Vocab: 1024, MaxContext: 4096, RopeTheta: 10000},
	}
}

// ShapeOf finds a shape by its name.
func ShapeOf(name string) (Shape, error) {
	var names []string
	for _, s := range Shapes() {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Shape{}, fmt.Errorf("there is no shape %q; known are %s", name, strings.Join(names, ", "))
}

// Types are the element types a model can be written in.
func Types() []tensor.DType {
	return []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K}
}

// TypeOf finds a type by its name, in any case of letters.
func TypeOf(name string) (tensor.DType, error) {
	var names []string
	for _, t := range Types() {
		if strings.EqualFold(t.String(), name) {
			return t, nil
		}
		names = append(names, strings.ToLower(t.String()))
	}
	return 0, fmt.Errorf("there is no type %q; known are %s", name, strings.Join(names, ", "))
}

// tensors are the model's tensors without their bytes, in type dt; vectors are
// F32, as converters write them.
func (s *Shape) tensors(dt tensor.DType) []tensor.Tensor {
	var all []tensor.Tensor
	matrix := func(name string, out, in int) {
		all = append(all, tensor.Tensor{Name: name + ".weight", DType: dt, Shape: []int{out, in}})
	}
	vector := func(name string, n int) {
		all = append(all, tensor.Tensor{Name: name + ".weight", DType: tensor.F32, Shape: []int{n}})
	}
	q, kv := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	matrix("token_embd", s.Vocab, s.Hidden)
	vector("output_norm", s.Hidden)
	if !s.Tied {
		matrix("output", s.Vocab, s.Hidden)
	}
	if s.RopeDivisors {
		vector("rope_freqs", s.HeadDim/2)
	}
	for i := range s.Layers {
		p := fmt.Sprintf("blk.%d.", i)
		vector(p+"attn_norm", s.Hidden)
		matrix(p+"attn_q", q, s.Hidden)
		matrix(p+"attn_k", kv, s.Hidden)
		matrix(p+"attn_v", kv, s.Hidden)
		matrix(p+"attn_output", s.Hidden, q)
		vector(p+"ffn_norm", s.Hidden)
		matrix(p+"ffn_gate", s.Inner, s.Hidden)
		matrix(p+"ffn_up", s.Inner, s.Hidden)
		matrix(p+"ffn_down", s.Hidden, s.Inner)
	}
	return all
}

// Parameters is the number of weights.
func (s *Shape) Parameters() int {
	n := 0
	for _, t := range s.tensors(tensor.F32) {
		n += t.Elems()
	}
	return n
}

// fits says why dt cannot hold the shape's rows, if so.
func (s *Shape) fits(dt tensor.DType) error {
	block, _ := dt.Block()
	rows := []int{s.Hidden, s.Inner, s.Heads * s.HeadDim}
	if i := slices.IndexFunc(rows, func(n int) bool { return n%block != 0 }); i >= 0 {
		return fmt.Errorf("rows of %d values are no whole number of %v's blocks of %d", rows[i], dt, block)
	}
	return nil
}
