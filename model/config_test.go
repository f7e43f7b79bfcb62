package model

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// parse reads a small configuration of a family with more set.
func parse(t *testing.T, family string, more map[string]any, generation string) (Config, error) {
	t.Helper()
	b, err := json.Marshal(small(family, more))
	if err != nil {
		t.Fatal(err)
	}
	return ParseConfig(b, []byte(generation))
}

func TestParseConfig(t *testing.T) {
	f := func(family string, more map[string]any, generation string, check func(c Config) bool) {
		t.Helper()
		c, err := parse(t, family, more, generation)
		if err != nil {
			t.Fatal(err)
		}
		if !check(c) {
			t.Errorf("%s with %v became %+v", family, more, c)
		}
	}
	f("llama", nil, "", func(c Config) bool {
		return c.Family == "llama" && c.Layers == 2 && c.Hidden == 48 && c.Intermediate == 80 && c.Heads == 6 && c.KVHeads == 2 &&
			c.HeadDim == 16 && c.VocabSize == 50 && c.MaxContext == 512 && c.NormEps == 1e-6 && !c.Tied && !c.QKVBias && !c.OutputBias &&
			!c.MLPBias && !c.QKNorm && c.BOS == -1 && slices.Equal(c.EOS, []terse.Token{2}) && c.Rotary == Rotary{Theta: 10000, Dim: 16} &&
			c.AttentionScale() == 0.25
	})
	f("llama", map[string]any{"head_dim": nil, "num_key_value_heads": nil, "tie_word_embeddings": true, "bos_token_id": 1}, "", func(c Config) bool {
		return c.HeadDim == 8 && c.KVHeads == 6 && c.Tied && c.BOS == 1
	})
	f("llama", map[string]any{"attention_bias": true}, "", func(c Config) bool { return c.QKVBias && c.OutputBias && !c.MLPBias })
	f("llama", map[string]any{"mlp_bias": true, "hidden_act": "swish"}, "", func(c Config) bool { return c.MLPBias && !c.QKVBias })
	f("mistral", map[string]any{"attention_bias": true}, "", func(c Config) bool { return !c.QKVBias })
	f("qwen2", nil, "", func(c Config) bool { return c.QKVBias && !c.OutputBias && !c.QKNorm })
	f("qwen3", map[string]any{"head_dim": nil}, "", func(c Config) bool { return c.QKNorm && !c.QKVBias && c.HeadDim == 128 })
	f("llama", map[string]any{"eos_token_id": []int{5, 6}}, `{"eos_token_id": [6, 7], "temperature": 0.6}`, func(c Config) bool {
		return slices.Equal(c.EOS, []terse.Token{5, 6, 7})
	})
	f("llama", map[string]any{"eos_token_id": nil}, `{"eos_token_id": 9}`, func(c Config) bool { return slices.Equal(c.EOS, []terse.Token{9}) })
	// Windows that leave nothing out.
	f("mistral", map[string]any{"sliding_window": 512}, "", func(c Config) bool { return c.MaxContext == 512 })
	f("qwen2", map[string]any{"sliding_window": 64, "use_sliding_window": false}, "", func(c Config) bool { return true })
	f("qwen2", map[string]any{"sliding_window": 64, "use_sliding_window": true, "max_window_layers": 2}, "", func(c Config) bool { return true })
	f("qwen3", map[string]any{"sliding_window": 64, "layer_types": []string{"full_attention", "full_attention"}}, "", func(c Config) bool { return true })
}

func TestParseRotary(t *testing.T) {
	f := func(more map[string]any, context int, want Rotary) {
		t.Helper()
		c, err := parse(t, "llama", more, "")
		if err != nil {
			t.Fatal(err)
		}
		if c.Rotary != want || c.MaxContext != context {
			t.Errorf("%v became %+v with a context of %d, want %+v and %d", more, c.Rotary, c.MaxContext, want, context)
		}
	}
	scaling := func(v map[string]any) map[string]any { return map[string]any{"rope_scaling": v} }
	plain := Rotary{Theta: 10000, Dim: 16}
	with := func(s Scaling) Rotary { return Rotary{Theta: 10000, Dim: 16, Scaling: s} }
	f(map[string]any{"rope_theta": 500000}, 512, Rotary{Theta: 500000, Dim: 16})
	f(map[string]any{"rope_theta": nil}, 512, plain)
	f(map[string]any{"rope_theta": nil, "rope_parameters": map[string]any{"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}}, 512, Rotary{Theta: 1e6, Dim: 8})
	f(map[string]any{"rope_scaling": nil}, 512, plain)
	f(scaling(map[string]any{"rope_type": "default"}), 512, plain)
	f(scaling(map[string]any{"type": "linear", "factor": 2}), 512, with(Scaling{Type: "linear", Factor: 2}))
	f(scaling(map[string]any{"type": "dynamic", "factor": 2.0}), 512, plain)
	f(scaling(map[string]any{"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 256}), 256, plain)
	f(scaling(map[string]any{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}), 512,
		with(Scaling{Type: "llama3", Factor: 8, Original: 64, LowFreq: 1, HighFreq: 4}))
	// The context is the longer one where the file still states the shorter.
	f(scaling(map[string]any{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}), 2048,
		with(Scaling{Type: "yarn", Factor: 4, Original: 512, BetaFast: 32, BetaSlow: 1, Attention: 0.1*math.Log(4) + 1}))
	f(scaling(map[string]any{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 16, "beta_slow": 2, "attention_factor": 1, "truncate": false}), 512,
		with(Scaling{Type: "yarn", Factor: 4, Original: 128, BetaFast: 16, BetaSlow: 2, Attention: 1, Exact: true}))
	f(scaling(map[string]any{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "mscale": 1.0, "mscale_all_dim": 1.0}), 512,
		with(Scaling{Type: "yarn", Factor: 4, Original: 128, BetaFast: 32, BetaSlow: 1, Attention: 1}))
}

// What the graph does not compute is refused, and the message says what it was.
func TestParseConfigRefuses(t *testing.T) {
	f := func(family string, more map[string]any, want string) {
		t.Helper()
		if c, err := parse(t, family, more, ""); err == nil {
			t.Errorf("%s with %v is accepted: %+v", family, more, c)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s with %v: error %q does not say %q", family, more, err, want)
		}
	}
	for _, family := range []string{"gemma3", "mixtral", "phi3", "qwen2_moe", "gpt2", "Llama"} {
		f(family, nil, `model_type "`+family+`" is not supported; supported: llama`)
	}
	f("", nil, "model_type is missing")
	f("llama", map[string]any{"architectures": []string{"LlamaForSequenceClassification"}}, "LlamaForSequenceClassification")
	f("qwen2", map[string]any{"architectures": []string{"Qwen2ForRewardModel"}}, "Qwen2ForRewardModel")
	f("mistral", map[string]any{"sliding_window": 256}, "sliding-window attention (the last 256 of 512 tokens)")
	f("qwen2", map[string]any{"sliding_window": 256, "use_sliding_window": true}, "sliding-window")
	f("qwen2", map[string]any{"sliding_window": 256, "use_sliding_window": true, "max_window_layers": 1}, "sliding-window")
	f("qwen3", map[string]any{"sliding_window": 256, "layer_types": []string{"full_attention", "sliding_attention"}}, "sliding-window")
	f("llama", map[string]any{"layer_types": []string{"chunked_attention"}}, "chunked_attention")
	f("qwen3", map[string]any{"num_experts": 128}, "128 experts")
	f("llama", map[string]any{"num_local_experts": 8}, "mixture-of-experts")
	for _, method := range []string{"gptq", "awq", "fp8"} {
		f("llama", map[string]any{"quantization_config": map[string]any{"quant_method": method, "bits": 4}}, "quantised by "+method)
	}
	f("llama", map[string]any{"compression_config": map[string]any{}}, "unknown method")
	f("llama", map[string]any{"hidden_act": "gelu"}, `"gelu"`)
	for _, kind := range []string{"longrope", "su", "mrope"} {
		f("llama", map[string]any{"rope_scaling": map[string]any{"type": kind, "factor": 2.0}}, `rope scaling "`+kind+`" is not supported`)
	}
	f("llama", map[string]any{"rope_parameters": map[string]any{"full_attention": map[string]any{}}}, "differ by type of layer")
	f("llama", map[string]any{"rope_scaling": map[string]any{"type": "linear"}}, "factor")
	f("llama", map[string]any{"rope_scaling": map[string]any{"rope_type": "llama3", "factor": 8.0}}, "original_max_position_embeddings")
	f("llama", map[string]any{"rope_scaling": map[string]any{"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}}, "low_freq_factor")
	f("llama", map[string]any{"rope_scaling": "linear"}, "rope_scaling")
	f("llama", map[string]any{"partial_rotary_factor": 1.5}, "partial_rotary_factor")
	f("llama", map[string]any{"head_dim": 15}, "rotary")
	f("llama", map[string]any{"head_dim": nil, "hidden_size": 50}, "cannot be shared out")
	f("llama", map[string]any{"rope_theta": 0}, "rope theta")
	f("llama", map[string]any{"num_key_value_heads": 4}, "6 attention heads cannot share 4 KV heads")
	f("llama", map[string]any{"num_key_value_heads": 0}, "number of KV heads is 0")
	f("llama", map[string]any{"num_hidden_layers": 1 << 30}, "number of layers")
	f("llama", map[string]any{"hidden_size": -48}, "hidden size is -48")
	f("llama", map[string]any{"num_attention_heads": 0, "head_dim": nil}, "0 attention heads")
	f("llama", map[string]any{"head_dim": 1 << 19}, "wider than")
	f("llama", map[string]any{"max_position_embeddings": nil}, "context length is 0")
	f("llama", map[string]any{"rms_norm_eps": nil}, "epsilon")
	f("llama", map[string]any{"vocab_size": "many"}, "vocab_size")
	f("llama", map[string]any{"eos_token_id": "</s>"}, "token ids")
	if _, err := parse(t, "llama", nil, `{"eos_token_id": {}}`); err == nil || !strings.Contains(err.Error(), "generation_config.json") {
		t.Errorf("a damaged generation_config.json: %v", err)
	}
	if _, err := ParseConfig([]byte("{"), nil); err == nil {
		t.Error("half an object is accepted")
	}
}

// Mistral's class in transformers has a window of 4,096 where the file is silent.
func TestMistralDefaultWindow(t *testing.T) {
	c := small("mistral", map[string]any{"max_position_embeddings": 32768})
	delete(c, "sliding_window")
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseConfig(b, nil); err == nil || !strings.Contains(err.Error(), "4096 of 32768") {
		t.Errorf("err = %v", err)
	}
}

// metaOf is the metadata of a small GGUF model with more set; nil removes a key.
func metaOf(arch string, more map[string]any) map[string]any {
	p := arch + "."
	m := map[string]any{
		"general.architecture": arch, p + "block_count": uint32(2), p + "embedding_length": uint32(48), p + "feed_forward_length": uint32(80),
		p + "context_length": uint32(512), p + "attention.head_count": uint32(6), p + "attention.head_count_kv": uint32(2),
		p + "attention.layer_norm_rms_epsilon": float32(1e-5), "tokenizer.ggml.tokens": make([]string, 50),
		"tokenizer.ggml.bos_token_id": uint32(1), "tokenizer.ggml.eos_token_id": uint32(2), "tokenizer.ggml.eot_token_id": uint32(3),
	}
	maps.Copy(m, more)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
	return m
}

func TestParseGGUF(t *testing.T) {
	f := func(arch string, more map[string]any, tensors []string, check func(c Config) bool) {
		t.Helper()
		c, err := ParseGGUF(metaOf(arch, more), tensors)
		if err != nil {
			t.Fatal(err)
		}
		if !check(c) {
			t.Errorf("%s with %v became %+v", arch, more, c)
		}
	}
	f("llama", nil, []string{"output.weight"}, func(c Config) bool {
		return c.Family == "llama" && c.Layers == 2 && c.Hidden == 48 && c.Intermediate == 80 && c.Heads == 6 && c.KVHeads == 2 && c.HeadDim == 8 &&
			c.VocabSize == 50 && c.MaxContext == 512 && c.NormEps == 1e-5 && !c.Tied && !c.QKVBias && c.BOS == 1 && slices.Equal(c.EOS, []terse.Token{2, 3}) &&
			c.Rotary == Rotary{Theta: 10000, Dim: 8, Interleaved: true}
	})
	f("llama", map[string]any{"llama.attention.key_length": uint32(16), "llama.attention.value_length": uint32(16), "llama.attention.head_count_kv": nil, "llama.vocab_size": int64(49), "tokenizer.ggml.bos_token_id": nil}, nil, func(c Config) bool {
		return c.HeadDim == 16 && c.Tied && c.KVHeads == 6 && c.VocabSize == 49 && c.BOS == -1
	})
	f("qwen2", map[string]any{"qwen2.rope.freq_base": float32(1e6)}, nil, func(c Config) bool {
		return c.QKVBias && !c.QKNorm && c.Rotary == Rotary{Theta: 1e6, Dim: 8}
	})
	f("qwen3", nil, nil, func(c Config) bool { return c.QKNorm && !c.QKVBias && !c.Rotary.Interleaved })
	f("llama", nil, []string{"blk.0.attn_q.bias", "blk.0.attn_output.bias", "blk.0.ffn_gate.bias"}, func(c Config) bool { return c.QKVBias && c.OutputBias && c.MLPBias })
	f("llama", map[string]any{"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": float32(4)}, nil, func(c Config) bool {
		return c.Rotary.Scaling.Type == "linear" && c.Rotary.Scaling.Factor == 4
	})
	f("llama", map[string]any{"llama.rope.scale_linear": float32(2)}, nil, func(c Config) bool { return c.Rotary.Scaling.Type == "linear" && c.Rotary.Scaling.Factor == 2 })
	f("qwen2", map[string]any{"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": float32(4), "qwen2.rope.scaling.original_context_length": uint32(128)}, nil, func(c Config) bool {
		return c.Rotary.Scaling == Scaling{Type: "yarn", Factor: 4, Original: 128, BetaFast: 32, BetaSlow: 1, Attention: 0.1*math.Log(4) + 1}
	})
}

func TestParseGGUFRefuses(t *testing.T) {
	f := func(arch string, more map[string]any, want string) {
		t.Helper()
		if c, err := ParseGGUF(metaOf(arch, more), nil); err == nil {
			t.Errorf("%s with %v is accepted: %+v", arch, more, c)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s with %v: error %q does not say %q", arch, more, err, want)
		}
	}
	f("gemma2", nil, `architecture "gemma2" is not supported; supported: llama`)
	f("llama", map[string]any{"general.architecture": nil}, "general.architecture is missing")
	f("llama", map[string]any{"general.architecture": uint32(1)}, "general.architecture is missing")
	f("llama", map[string]any{"llama.block_count": nil}, "llama.block_count is missing")
	f("llama", map[string]any{"llama.block_count": int32(-1)}, "llama.block_count is -1")
	f("llama", map[string]any{"llama.block_count": uint64(1 << 63)}, "llama.block_count")
	f("llama", map[string]any{"llama.block_count": uint32(1 << 30)}, "number of layers")
	f("llama", map[string]any{"llama.block_count": "two"}, "two")
	f("llama", map[string]any{"llama.attention.head_count": uint32(0)}, "number of attention heads is 0")
	f("llama", map[string]any{"llama.attention.head_count_kv": []uint32{2, 2}}, "head_count_kv")
	f("llama", map[string]any{"llama.attention.head_count_kv": uint32(4)}, "share 4 KV heads")
	f("llama", map[string]any{"llama.attention.layer_norm_rms_epsilon": nil}, "epsilon is missing")
	f("llama", map[string]any{"llama.attention.layer_norm_rms_epsilon": float32(math.NaN())}, "epsilon")
	f("llama", map[string]any{"llama.attention.value_length": uint32(4)}, "must be equal")
	f("llama", map[string]any{"llama.attention.sliding_window": uint32(128)}, "sliding-window")
	f("llama", map[string]any{"llama.expert_count": uint32(8)}, "8 experts")
	f("llama", map[string]any{"llama.rope.scaling.type": "longrope"}, "longrope")
	f("llama", map[string]any{"llama.rope.dimension_count": uint32(9)}, "rotary")
	f("llama", map[string]any{"llama.rope.freq_base": float32(math.Inf(1))}, "rope theta")
	f("llama", map[string]any{"tokenizer.ggml.tokens": nil}, "vocab_size is missing")
	f("llama", map[string]any{"tokenizer.ggml.eos_token_id": "x"}, "eos_token_id")
}

func TestGeometry(t *testing.T) {
	c, err := parse(t, "llama", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := quant.ParseFormat("f16", false)
	if err != nil {
		t.Fatal(err)
	}
	g, err := c.Geometry(f)
	if err != nil || g.Layers != 2 || g.KVHeads != 2 || g.HeadDim != 16 {
		t.Errorf("geometry %+v, %v", g, err)
	}
}

// Whatever config.json says, the answer is a configuration that the graph can
// have, or an error.
func FuzzConfig(f *testing.F) {
	for _, more := range []map[string]any{
		nil,
		{"eos_token_id": []int{1, 2}, "rope_scaling": map[string]any{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}},
		{"rope_parameters": map[string]any{"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}},
	} {
		b, err := json.Marshal(small("llama", more))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte(`{"eos_token_id": 3}`))
	}
	f.Add([]byte(`{"model_type":"qwen3","head_dim":-2,"num_attention_heads":0}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, config, generation []byte) {
		if c, err := ParseConfig(config, generation); err == nil {
			sound(t, c)
		}
	})
}

// The same of GGUF metadata with one key replaced by a hostile value.
func FuzzGGUFMetadata(f *testing.F) {
	f.Add("llama", "block_count", int64(-1), float64(0), uint8(0))
	f.Add("qwen2", "attention.head_count_kv", int64(1<<40), 1e30, uint8(1))
	f.Add("qwen3", "rope.freq_base", int64(0), math.Inf(-1), uint8(2))
	f.Add("llama", "rope.scaling.type", int64(0), 0.0, uint8(3))
	f.Fuzz(func(t *testing.T, arch, key string, i int64, x float64, kind uint8) {
		values := []any{i, uint64(i), x, float32(x), "yarn", "linear", []int32{int32(i)}, i%2 == 0}
		meta := metaOf(arch, map[string]any{arch + "." + key: values[int(kind)%len(values)], arch + ".rope.scaling.factor": float32(x)})
		if c, err := ParseGGUF(meta, nil); err == nil {
			sound(t, c)
		}
	})
}

// sound fails unless sizes are positive and frequencies finite.
func sound(t *testing.T, c Config) {
	t.Helper()
	if c.Layers < 1 || c.Hidden < 1 || c.Intermediate < 1 || c.Heads < 1 || c.KVHeads < 1 || c.HeadDim < 1 || c.VocabSize < 1 || c.MaxContext < 1 {
		t.Fatalf("accepted %+v", c)
	}
	rope := c.Rotary.frequencies(nil)
	if s := float64(rope.scale); !(s > 0) || math.IsInf(s, 0) {
		t.Fatalf("%+v has magnitude %g", c.Rotary, s)
	}
	for i, v := range rope.inverse {
		if !(v >= 0) || math.IsInf(float64(v), 0) {
			t.Fatalf("%+v has frequency %g at %d", c.Rotary, v, i)
		}
	}
}
