package synthetic

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/terse-llm/terse/internal/gguf"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// WriteFile writes the model of a seed to a file. Equal seeds give equal files.
func WriteFile(path string, s Shape, dt tensor.DType, seed uint64) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot write the model: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err := Write(w, s, dt, seed); err != nil {
		f.Close()
		return err
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return fmt.Errorf("cannot write the model: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot write the model: %w", err)
	}
	return nil
}

// Write writes the model of a seed, its matrices in type dt. It holds a few
// megabytes whatever the model's size.
func Write(w io.Writer, s Shape, dt tensor.DType, seed uint64) error {
	if err := s.fits(dt); err != nil {
		return fmt.Errorf("cannot write %s as %v: %w", s.Name, dt, err)
	}
	meta, err := s.metadata()
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", s.Name, err)
	}
	tensors := s.tensors(dt)
	p := &pool{dt: dt, random: rand.New(rand.NewPCG(seed, 1)), coded: map[int][]byte{}}
	return gguf.Write(w, meta, tensors, func(w io.Writer, i int) error {
		t := tensors[i]
		if len(t.Shape) == 1 {
			return ones(w, t.Shape[0])
		}
		return p.matrix(w, t)
	})
}

func (s *Shape) metadata() (map[string]any, error) {
	meta, err := s.vocabulary()
	if err != nil {
		return nil, err
	}
	maps.Copy(meta, map[string]any{
		"general.architecture": "llama", "general.name": s.Name + " (random weights)",
		"general.quantization_version": uint32(2),
		"llama.block_count":            uint32(s.Layers), "llama.context_length": uint32(s.MaxContext),
		"llama.embedding_length": uint32(s.Hidden), "llama.feed_forward_length": uint32(s.Inner),
		"llama.attention.head_count": uint32(s.Heads), "llama.attention.head_count_kv": uint32(s.KVHeads),
		"llama.attention.key_length": uint32(s.HeadDim), "llama.attention.value_length": uint32(s.HeadDim),
		"llama.attention.layer_norm_rms_epsilon": float32(1e-5),
		"llama.rope.dimension_count":             uint32(s.HeadDim), "llama.rope.freq_base": s.RopeTheta,
		"llama.vocab_size": uint32(s.Vocab),
	})
	return meta, nil
}

// poolSize is the number of values drawn: a whole number of every type's blocks.
const poolSize = 1 << 20

// pool is Gaussian values coded as dt, once for each deviation in use.
type pool struct {
	dt     tensor.DType
	random *rand.Rand
	values []float32
	coded  map[int][]byte // by number of inputs
}

// matrix writes t's bytes: stretches of the pool from random blocks on.
func (p *pool) matrix(w io.Writer, t tensor.Tensor) error {
	in := t.Shape[1]
	b := p.coded[in]
	if b == nil {
		b = p.code(in)
		p.coded[in] = b
	}
	_, size := p.dt.Block()
	for left := p.dt.RowBytes(t.Elems()); left > 0; {
		from := p.random.IntN(len(b)/size) * size
		n := min(left, len(b)-from)
		if _, err := w.Write(b[from : from+n]); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// code is the pool for matrices of in inputs.
func (p *pool) code(in int) []byte {
	if p.values == nil {
		p.values = make([]float32, poolSize)
		for i := range p.values {
			p.values[i] = float32(p.random.NormFloat64())
		}
	}
	scaled := make([]float32, len(p.values))
	for i, v := range p.values {
		scaled[i] = v / float32(math.Sqrt(float64(in)))
	}
	b := make([]byte, p.dt.RowBytes(len(scaled)))
	blocks.Quantize(b, p.dt, scaled)
	return b
}

// ones is a vector of ones in F32: norms that change nothing.
func ones(w io.Writer, n int) error {
	_, err := io.Copy(w, strings.NewReader(strings.Repeat("\x00\x00\x80\x3f", n)))
	return err
}
