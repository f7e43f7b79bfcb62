package model

import (
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/weights"
)

// Config is a model's shape and settings, whichever file they come from.
type Config struct {
	Family       string // "llama", "mistral", "qwen2" or "qwen3"
	Layers       int
	Hidden       int
	Intermediate int // of the SwiGLU
	Heads        int // query heads
	KVHeads      int // a divisor of Heads
	HeadDim      int // need not be Hidden/Heads
	VocabSize    int
	MaxContext   int // tokens of prompt and answer together
	NormEps      float32
	Rotary       Rotary

	Tied       bool // the output embedding is the input embedding
	QKVBias    bool // q, k and v projections have biases
	OutputBias bool // the attention's output projection has one
	MLPBias    bool
	QKNorm     bool // RMSNorm over each head of q and k before RoPE

	BOS terse.Token   // -1 where the model has none
	EOS []terse.Token // any of them ends a generation

	layout layout // how the file names its tensors
}

// ConfigOf reads the configuration of an open model.
func ConfigOf(src *weights.Source) (Config, error) {
	if meta, ok := src.GGUF(); ok {
		return ParseGGUF(meta, src.Names())
	}
	config, ok := src.Config()
	if !ok {
		return Config{}, errors.New("cannot configure the model: it has neither config.json nor GGUF metadata")
	}
	generation, err := fs.ReadFile(src.FS(), "generation_config.json")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("cannot read generation_config.json: %w", err)
	}
	return ParseConfig(config, generation)
}

// Geometry lays a KV format out for the model.
func (c Config) Geometry(f quant.Format) (*quant.Geometry, error) {
	return quant.NewGeometry(f, c.Layers, c.KVHeads, c.HeadDim)
}

// CalibratedGeometry is Geometry for formats that a calibration has a say in.
func (c Config) CalibratedGeometry(f quant.Format, cal *quant.Calibration) (*quant.Geometry, error) {
	return quant.NewCalibratedGeometry(f, cal, c.Layers, c.KVHeads, c.HeadDim)
}

// AttentionScale is what multiplies q·k.
func (c Config) AttentionScale() float32 { return float32(1 / math.Sqrt(float64(c.HeadDim))) }

// What no model of the family exceeds by far. The bounds keep products of any
// three of them within an int, and allocations for hostile files small.
const (
	maxLayers = 1 << 12
	maxWidth  = 1 << 20 // hidden, intermediate, heads × head_dim
	maxVocab  = 1 << 24
	maxTokens = 1 << 28
)

// check refuses shapes that the graph cannot have.
func (c Config) check() error {
	for _, v := range []struct {
		name     string
		n, limit int
	}{
		{"number of layers", c.Layers, maxLayers}, {"hidden size", c.Hidden, maxWidth},
		{"intermediate size", c.Intermediate, maxWidth}, {"number of attention heads", c.Heads, maxWidth},
		{"number of KV heads", c.KVHeads, maxWidth}, {"head_dim", c.HeadDim, maxWidth},
		{"vocabulary size", c.VocabSize, maxVocab}, {"context length", c.MaxContext, maxTokens},
	} {
		if v.n < 1 || v.n > v.limit {
			return fmt.Errorf("%s is %d, want 1 to %d", v.name, v.n, v.limit)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("%d attention heads cannot share %d KV heads evenly", c.Heads, c.KVHeads)
	case c.Heads*c.HeadDim > maxWidth:
		return fmt.Errorf("%d attention heads of head_dim %d are wider than %d", c.Heads, c.HeadDim, maxWidth)
	case !(c.NormEps > 0 && c.NormEps < 1):
		return fmt.Errorf("the RMSNorm epsilon is %g, want more than 0 and less than 1", c.NormEps)
	}
	return c.Rotary.check(c.HeadDim)
}

// supported lists the families in messages.
const supported = "llama (Llama 1 to 3.x, Yi), mistral, qwen2 (and Qwen2.5), qwen3"

// sliding refuses attention over a window that is shorter than the context;
// window is 0 where there is none.
func (c Config) sliding(window int) error {
	if window > 0 && window < c.MaxContext {
		return fmt.Errorf("sliding-window attention (the last %d of %d tokens) is not supported: use a model that attends to its whole context", window, c.MaxContext)
	}
	return nil
}
