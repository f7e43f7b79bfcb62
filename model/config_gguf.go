package model

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/terse-llm/terse"
)

// ParseGGUF reads the metadata of a GGUF file; names are its tensors, which
// tell of tied embeddings and biases.
func ParseGGUF(meta map[string]any, names []string) (Config, error) {
	c, err := parseGGUF(meta, names)
	if err != nil {
		return Config{}, fmt.Errorf("cannot use the model by its GGUF metadata: %w", err)
	}
	return c, nil
}

func parseGGUF(meta map[string]any, names []string) (Config, error) {
	arch, ok := meta["general.architecture"].(string)
	if !ok {
		return Config{}, errors.New("general.architecture is missing")
	}
	if !slices.Contains([]string{"llama", "qwen2", "qwen3"}, arch) {
		return Config{}, fmt.Errorf("architecture %q is not supported; supported: llama (Llama 1 to 3.x, Mistral, Yi), qwen2 (and Qwen2.5), qwen3", arch)
	}
	m := &metadata{values: meta, prefix: arch + "."}
	if n := m.int("expert_count", 0); n > 0 {
		return Config{}, fmt.Errorf("mixture-of-experts models (%d experts) are not supported", n)
	}
	has := func(name string) bool { return slices.Contains(names, name) }
	c := Config{
		Family: arch, layout: gguf,
		Layers: m.int("block_count", -1), Hidden: m.int("embedding_length", -1),
		Intermediate: m.int("feed_forward_length", -1), MaxContext: m.int("context_length", -1),
		Heads:   m.int("attention.head_count", -1),
		NormEps: float32(m.float("attention.layer_norm_rms_epsilon", math.NaN())),
		Tied:    !has("output.weight"), QKNorm: arch == "qwen3",
		QKVBias:    arch == "qwen2" || has("blk.0.attn_q.bias"),
		OutputBias: has("blk.0.attn_output.bias"), MLPBias: has("blk.0.ffn_gate.bias"),
	}
	c.KVHeads = m.int("attention.head_count_kv", c.Heads)
	c.VocabSize = m.int("vocab_size", m.vocabulary())
	c.BOS, c.EOS = m.ends()
	if c.Heads > 0 {
		c.HeadDim = m.int("attention.key_length", c.Hidden/c.Heads)
	}
	if v := m.int("attention.value_length", c.HeadDim); v != c.HeadDim && m.err == nil {
		return Config{}, fmt.Errorf("keys of %d and values of %d channels are not supported: they must be equal", c.HeadDim, v)
	}
	c.Rotary = m.rotary(c)
	if m.err != nil {
		return Config{}, m.err
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, c.sliding(m.int("attention.sliding_window", 0))
}

// metadata reads values of one architecture and keeps the first error.
type metadata struct {
	values map[string]any
	prefix string
	err    error
}

func (m *metadata) fail(key string, v any) {
	if m.err == nil {
		m.err = fmt.Errorf("%s%s is %v (%T), which is not supported", m.prefix, key, v, v)
	}
}

// int is an integer of any width, or fallback where the key is absent; a
// negative fallback makes the key required.
func (m *metadata) int(key string, fallback int) int {
	v, ok := m.values[m.prefix+key]
	if !ok {
		if fallback < 0 && m.err == nil {
			m.err = fmt.Errorf("%s%s is missing", m.prefix, key)
		}
		return fallback
	}
	switch n := reflect.ValueOf(v); {
	case n.CanInt() && n.Int() >= 0 && n.Int() <= math.MaxInt32:
		return int(n.Int())
	case n.CanUint() && n.Uint() <= math.MaxInt32:
		return int(n.Uint())
	}
	m.fail(key, v)
	return 0
}

// float is a float of either width, or fallback; NaN makes the key required.
func (m *metadata) float(key string, fallback float64) float64 {
	switch v := m.values[m.prefix+key].(type) {
	case float32:
		return float64(v)
	case float64:
		return v
	case nil:
		if math.IsNaN(fallback) && m.err == nil {
			m.err = fmt.Errorf("%s%s is missing", m.prefix, key)
		}
	default:
		m.fail(key, v)
	}
	return fallback
}

// vocabulary is the number of the tokenizer's tokens.
func (m *metadata) vocabulary() int {
	if t, ok := m.values["tokenizer.ggml.tokens"].([]string); ok {
		return len(t)
	}
	return -1
}

// ends are the beginning and the end tokens.
func (m *metadata) ends() (bos terse.Token, eos []terse.Token) {
	t := &metadata{values: m.values, prefix: "tokenizer.ggml."}
	const none = math.MaxInt32
	token := func(key string) (terse.Token, bool) {
		id := t.int(key, none)
		return terse.Token(id), id != none && t.err == nil
	}
	bos = -1
	if id, ok := token("bos_token_id"); ok {
		bos = id
	}
	for _, key := range []string{"eos_token_id", "eot_token_id"} {
		if id, ok := token(key); ok && !slices.Contains(eos, id) {
			eos = append(eos, id)
		}
	}
	if m.err == nil {
		m.err = t.err
	}
	return bos, eos
}

// rotary reads the rotary embedding. Converters permute the rows of Llama's q
// and k so that pairs lie side by side, and leave those of the others.
func (m *metadata) rotary(c Config) Rotary {
	r := Rotary{
		Theta: m.float("rope.freq_base", 10000), Dim: m.int("rope.dimension_count", c.HeadDim),
		Interleaved: c.Family == "llama",
	}
	s := Scaling{
		Factor:   m.float("rope.scaling.factor", m.float("rope.scale_linear", 1)), // the second is the old spelling
		Original: float64(m.int("rope.scaling.original_context_length", c.MaxContext)),
	}
	kind, given := m.values[m.prefix+"rope.scaling.type"]
	switch {
	case kind == "none" || !given && s.Factor == 1:
		return r
	case kind == "linear" || !given:
		s.Type = "linear"
	case kind == "yarn":
		s.Type = "yarn"
		s.BetaFast, s.BetaSlow = m.float("rope.scaling.yarn_beta_fast", 32), m.float("rope.scaling.yarn_beta_slow", 1)
		s.Attention = m.float("rope.scaling.attn_factor", 1) * yarnAttention(s.Factor, 1)
	default:
		m.fail("rope.scaling.type", kind)
	}
	r.Scaling = s
	return r
}
