package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/terse-llm/terse"
)

// hfConfig is what the graph reads of config.json. Pointers tell what is absent
// or null; raw messages are read by family.
type hfConfig struct {
	ModelType     string   `json:"model_type"`
	Architectures []string `json:"architectures"`

	Hidden       int     `json:"hidden_size"`
	Intermediate int     `json:"intermediate_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	KVHeads      *int    `json:"num_key_value_heads"`
	HeadDim      *int    `json:"head_dim"`
	VocabSize    int     `json:"vocab_size"`
	MaxPositions int     `json:"max_position_embeddings"`
	NormEps      float64 `json:"rms_norm_eps"`
	Activation   string  `json:"hidden_act"`

	RopeTheta      *float64        `json:"rope_theta"`
	RopeScaling    json.RawMessage `json:"rope_scaling"`
	RopeParameters json.RawMessage `json:"rope_parameters"`
	PartialRotary  *float64        `json:"partial_rotary_factor"`

	Tied          bool `json:"tie_word_embeddings"`
	AttentionBias bool `json:"attention_bias"`
	MLPBias       bool `json:"mlp_bias"`

	SlidingWindow    json.RawMessage `json:"sliding_window"`
	UseSlidingWindow bool            `json:"use_sliding_window"`
	MaxWindowLayers  *int            `json:"max_window_layers"`
	LayerTypes       []string        `json:"layer_types"`

	NumExperts      *int            `json:"num_experts"`
	NumLocalExperts *int            `json:"num_local_experts"`
	Quantization    json.RawMessage `json:"quantization_config"`
	Compression     json.RawMessage `json:"compression_config"`

	BOS tokenIDs `json:"bos_token_id"`
	EOS tokenIDs `json:"eos_token_id"`
}

// tokenIDs is one id, a list of ids or null.
type tokenIDs []terse.Token

func (t *tokenIDs) UnmarshalJSON(b []byte) error {
	*t = nil
	if absent(b) {
		return nil
	}
	if b[0] != '[' {
		b = slices.Concat([]byte("["), b, []byte("]"))
	}
	var ids []int32
	if err := json.Unmarshal(b, &ids); err != nil {
		return fmt.Errorf("token ids: %w", err)
	}
	for _, id := range ids {
		*t = append(*t, terse.Token(id))
	}
	return nil
}

func absent(b []byte) bool { return len(b) == 0 || bytes.Equal(b, []byte("null")) }

// ParseConfig reads a Hugging Face config.json, and the end tokens of
// generation_config.json where that is not nil.
func ParseConfig(config, generation []byte) (Config, error) {
	c, err := parseHF(config, generation)
	if err != nil {
		return Config{}, fmt.Errorf("cannot use the model by its config.json: %w", err)
	}
	return c, nil
}

func parseHF(config, generation []byte) (Config, error) {
	var h hfConfig
	if err := json.Unmarshal(config, &h); err != nil {
		return Config{}, err
	}
	if err := h.refuse(); err != nil {
		return Config{}, err
	}
	c := Config{
		Family: h.ModelType, Layers: h.Layers, Hidden: h.Hidden, Intermediate: h.Intermediate,
		Heads: h.Heads, KVHeads: h.Heads, VocabSize: h.VocabSize, MaxContext: h.MaxPositions,
		NormEps: float32(h.NormEps), Tied: h.Tied, EOS: h.EOS, BOS: -1, layout: huggingFace,
	}
	if h.KVHeads != nil {
		c.KVHeads = *h.KVHeads
	}
	if len(h.BOS) > 0 {
		c.BOS = h.BOS[0]
	}
	switch h.ModelType { // what the families' classes in transformers fix or allow
	case "llama":
		c.QKVBias, c.OutputBias, c.MLPBias = h.AttentionBias, h.AttentionBias, h.MLPBias
	case "qwen2":
		c.QKVBias = true
	case "qwen3":
		c.QKVBias, c.OutputBias, c.QKNorm = h.AttentionBias, h.AttentionBias, true
	}
	var err error
	if c.HeadDim, err = h.headDim(); err != nil {
		return Config{}, err
	}
	if err := h.rotary(&c); err != nil {
		return Config{}, err
	}
	if err := c.addEOS(generation); err != nil {
		return Config{}, err
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	window, err := h.window()
	if err != nil {
		return Config{}, err
	}
	return c, c.sliding(window)
}

// refuse names what the graph has no place for.
func (h *hfConfig) refuse() error {
	if h.ModelType == "" {
		return errors.New("model_type is missing; supported: " + supported)
	}
	if !slices.Contains([]string{"llama", "mistral", "qwen2", "qwen3"}, h.ModelType) {
		return fmt.Errorf("model_type %q is not supported; supported: %s", h.ModelType, supported)
	}
	for _, a := range h.Architectures {
		if !strings.EqualFold(a, h.ModelType+"ForCausalLM") {
			return fmt.Errorf("architecture %q of model_type %s is not supported, only the plain language model (…ForCausalLM); supported: %s", a, h.ModelType, supported)
		}
	}
	for _, n := range []*int{h.NumExperts, h.NumLocalExperts} {
		if n != nil && *n > 0 {
			return fmt.Errorf("mixture-of-experts models (%d experts) are not supported; supported: %s", *n, supported)
		}
	}
	for _, q := range []json.RawMessage{h.Quantization, h.Compression} {
		if absent(q) {
			continue
		}
		var method struct {
			Name string `json:"quant_method"`
		}
		if err := json.Unmarshal(q, &method); err != nil || method.Name == "" {
			method.Name = "of unknown method"
		}
		return fmt.Errorf("weights quantised by %s (quantization_config) are not supported: use the unquantised model, or a GGUF file in Q8_0, Q4_0, Q4_K, Q5_K or Q6_K", method.Name)
	}
	if h.Activation != "silu" && h.Activation != "swish" && h.Activation != "" {
		return fmt.Errorf("hidden_act %q is not supported, only silu", h.Activation)
	}
	return nil
}

// headDim is head_dim, or hidden_size shared out over the heads.
func (h *hfConfig) headDim() (int, error) {
	switch {
	case h.HeadDim != nil:
		return *h.HeadDim, nil
	case h.ModelType == "qwen3": // the class's own default, not a quotient
		return 128, nil
	case h.Heads < 1 || h.Hidden%h.Heads != 0:
		return 0, fmt.Errorf("hidden_size %d cannot be shared out over %d attention heads, and head_dim is not given", h.Hidden, h.Heads)
	}
	return h.Hidden / h.Heads, nil
}

// window is the sliding window of the layers that have one, 0 for none.
func (h *hfConfig) window() (int, error) {
	size := 4096 // the classes' default where the key is absent
	if len(h.SlidingWindow) > 0 {
		size = 0
		if err := json.Unmarshal(h.SlidingWindow, &size); err != nil { // null leaves 0
			return 0, fmt.Errorf("sliding_window: %w", err)
		}
	}
	if h.LayerTypes != nil {
		for _, t := range h.LayerTypes {
			if t != "full_attention" && t != "sliding_attention" {
				return 0, fmt.Errorf("layers of type %q are not supported, only full_attention", t)
			}
		}
		if !slices.Contains(h.LayerTypes, "sliding_attention") {
			return 0, nil
		}
		return size, nil
	}
	switch {
	case h.ModelType == "mistral":
		return size, nil
	case h.ModelType == "llama" || !h.UseSlidingWindow:
		return 0, nil
	case h.MaxWindowLayers != nil && *h.MaxWindowLayers >= h.Layers: // they are the layers without
		return 0, nil
	}
	return size, nil
}

// addEOS adds the end tokens of generation_config.json, which know more of chat
// than those of config.json.
func (c *Config) addEOS(generation []byte) error {
	if absent(generation) {
		return nil
	}
	var g struct {
		EOS tokenIDs `json:"eos_token_id"`
	}
	if err := json.Unmarshal(generation, &g); err != nil {
		return fmt.Errorf("generation_config.json: %w", err)
	}
	for _, id := range g.EOS {
		if !slices.Contains(c.EOS, id) {
			c.EOS = append(c.EOS, id)
		}
	}
	return nil
}

// hfRope is a rope_scaling or rope_parameters object.
type hfRope struct {
	Type          string   `json:"rope_type"`
	OldType       string   `json:"type"`
	Theta         *float64 `json:"rope_theta"`
	PartialRotary *float64 `json:"partial_rotary_factor"`
	Factor        float64  `json:"factor"`
	Original      float64  `json:"original_max_position_embeddings"`
	LowFreq       float64  `json:"low_freq_factor"`
	HighFreq      float64  `json:"high_freq_factor"`
	BetaFast      *float64 `json:"beta_fast"`
	BetaSlow      *float64 `json:"beta_slow"`
	Attention     *float64 `json:"attention_factor"`
	MScale        float64  `json:"mscale"`
	MScaleAll     float64  `json:"mscale_all_dim"`
	Truncate      *bool    `json:"truncate"`

	// Models of several types of layers have one object for each instead.
	Full    json.RawMessage `json:"full_attention"`
	Sliding json.RawMessage `json:"sliding_attention"`
}

// rotary reads the rotary embedding in its old spelling (rope_theta and
// rope_scaling) or its new one (rope_parameters).
func (h *hfConfig) rotary(c *Config) error {
	var p hfRope
	name, raw := "rope_parameters", h.RopeParameters
	if absent(raw) {
		name, raw = "rope_scaling", h.RopeScaling
	}
	if !absent(raw) {
		if err := json.Unmarshal(raw, &p); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if p.Full != nil || p.Sliding != nil {
		return fmt.Errorf("%s that differ by type of layer are not supported", name)
	}
	c.Rotary = Rotary{Theta: *first(p.Theta, h.RopeTheta, ptr(10000.0))}
	partial := *first(p.PartialRotary, h.PartialRotary, ptr(1.0))
	if !(partial > 0 && partial <= 1) {
		return fmt.Errorf("partial_rotary_factor is %g, want more than 0 and at most 1", partial)
	}
	c.Rotary.Dim = int(float64(c.HeadDim) * partial)
	return p.scaling(c)
}

func (p hfRope) scaling(c *Config) error {
	kind := p.Type
	if kind == "" {
		kind = p.OldType
	}
	s := Scaling{Type: kind, Factor: p.Factor, Original: p.Original}
	switch kind {
	case "", "default":
		s = Scaling{}
	case "linear":
	case "dynamic":
		// Frequencies change only beyond the length trained on, and then for
		// all tokens at once, which a cache of rotated keys cannot follow:
		// within that length it is no scaling at all.
		if p.Original > 0 && p.Original < float64(c.MaxContext) {
			c.MaxContext = int(p.Original)
		}
		s = Scaling{}
	case "llama3":
		s.LowFreq, s.HighFreq = p.LowFreq, p.HighFreq
	case "yarn":
		p.yarn(c, &s)
	default:
		return fmt.Errorf("rope scaling %q is not supported, only linear, dynamic, llama3 and yarn", kind)
	}
	c.Rotary.Scaling = s
	return nil
}

// yarn fills in what the paper and its implementations leave to defaults. Some
// models (Qwen2.5's instructions) state the context before scaling.
func (p hfRope) yarn(c *Config, s *Scaling) {
	if s.Original == 0 {
		s.Original = float64(c.MaxContext)
	}
	s.BetaFast, s.BetaSlow = *first(p.BetaFast, ptr(32.0)), *first(p.BetaSlow, ptr(1.0))
	s.Exact = p.Truncate != nil && !*p.Truncate
	switch {
	case p.Attention != nil:
		s.Attention = *p.Attention
	case p.MScale != 0 && p.MScaleAll != 0:
		s.Attention = yarnAttention(s.Factor, p.MScale) / yarnAttention(s.Factor, p.MScaleAll)
	default:
		s.Attention = yarnAttention(s.Factor, 1)
	}
	if longer := s.Original * s.Factor; p.Original > 0 && longer > float64(c.MaxContext) && longer <= maxTokens {
		c.MaxContext = int(math.Round(longer))
	}
}

// first is the first pointer that is not nil; one of them must be.
func first(values ...*float64) *float64 {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	panic("BUG: no default")
}

func ptr(v float64) *float64 { return &v }
