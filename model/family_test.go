package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels/ref"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/weights"
	"github.com/terse-llm/terse/weights/weightstest"
)

// small is the config.json of a model that is quick to compute, with more set.
func small(family string, more map[string]any) map[string]any {
	c := map[string]any{
		"model_type": family, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
		"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 50,
		"max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
		"tie_word_embeddings": false, "sliding_window": nil, "eos_token_id": 2,
	}
	maps.Copy(c, more)
	return c
}

// randomWeights are tensors for a small config, with biases and QK-norms where
// the family has them. Norms are far from 1 and biases from 0.
func randomWeights(family string, c map[string]any) map[string]tensor.Tensor {
	rng := rand.New(rand.NewPCG(7, 7))
	ts := map[string]tensor.Tensor{}
	add := func(name string, mean, size float64, shape ...int) {
		v := make([]float32, tensor.Tensor{Shape: shape}.Elems())
		for i := range v {
			v[i] = float32(mean + size*rng.NormFloat64())
		}
		ts[name] = weightstest.Tensor(name, tensor.F32, v, shape...)
	}
	n := func(key string) int { return c[key].(int) }
	dim, mlp, d := n("hidden_size"), n("intermediate_size"), n("head_dim")
	project := func(name string, bias bool, out, in int) {
		add(name+".weight", 0, 1.5/math.Sqrt(float64(in)), out, in)
		if bias {
			add(name+".bias", 0, 0.7, out)
		}
	}
	attention, output := c["attention_bias"] == true || family == "qwen2", c["attention_bias"] == true
	project("model.embed_tokens", false, n("vocab_size"), dim)
	if c["tie_word_embeddings"] != true {
		project("lm_head", false, n("vocab_size"), dim)
	}
	add("model.norm.weight", 1, 0.3, dim)
	for l := range n("num_hidden_layers") {
		p := fmt.Sprintf("model.layers.%d.", l)
		add(p+"input_layernorm.weight", 1, 0.3, dim)
		add(p+"post_attention_layernorm.weight", 1, 0.3, dim)
		project(p+"self_attn.q_proj", attention, n("num_attention_heads")*d, dim)
		project(p+"self_attn.k_proj", attention, n("num_key_value_heads")*d, dim)
		project(p+"self_attn.v_proj", attention, n("num_key_value_heads")*d, dim)
		project(p+"self_attn.o_proj", output, dim, n("num_attention_heads")*d)
		project(p+"mlp.gate_proj", c["mlp_bias"] == true, mlp, dim)
		project(p+"mlp.up_proj", c["mlp_bias"] == true, mlp, dim)
		project(p+"mlp.down_proj", c["mlp_bias"] == true, dim, mlp)
		if family == "qwen3" {
			add(p+"self_attn.q_norm.weight", 1, 0.3, d)
			add(p+"self_attn.k_norm.weight", 1, 0.3, d)
		}
	}
	return ts
}

func writeModel(t *testing.T, c map[string]any, ts map[string]tensor.Tensor) *weights.Source {
	t.Helper()
	dir := t.TempDir()
	b, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644)
	}
	if err == nil {
		err = weightstest.WriteSafetensors(filepath.Join(dir, "model.safetensors"), slices.Collect(maps.Values(ts)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

func newOracle(c map[string]any, ts map[string]tensor.Tensor) *oracle {
	n := func(key string) int { return c[key].(int) }
	o := &oracle{
		dim: n("hidden_size"), layers: n("num_hidden_layers"), heads: n("num_attention_heads"), kvHeads: n("num_key_value_heads"),
		headDim: n("head_dim"), eps: 1e-6, magnitude: 1, weights: map[string][]float64{},
	}
	for name, t := range ts {
		for _, v := range weightstest.Values(t) {
			o.weights[name] = append(o.weights[name], float64(v))
		}
	}
	for i := range o.headDim / 2 {
		o.freq = append(o.freq, 1/math.Pow(c["rope_theta"].(float64), float64(2*i)/float64(o.headDim)))
	}
	return o
}

func randomText(n int) []terse.Token {
	rng := rand.New(rand.NewPCG(8, 8))
	text := make([]terse.Token, n)
	for i := range text {
		text[i] = terse.Token(rng.IntN(50))
	}
	return text
}

// family compares the graph with the oracle, from the Hugging Face directory
// and (gguf) from a GGUF file of it. change makes the oracle's own settings; a
// second oracle without what makes the family special must be far off, or the
// comparison would prove nothing.
func family(t *testing.T, name string, more map[string]any, change func(*oracle), spoil func(*oracle), gguf bool) {
	t.Helper()
	c := small(name, more)
	ts := randomWeights(name, c)
	text := randomText(90)
	o := newOracle(c, ts)
	change(o)
	want := o.logits(text)
	spoil(o)
	if e := relative(o.logits(text), want); e < 0.02 {
		t.Fatalf("without its specialty the logits differ by %.2g only", e)
	}
	src := writeModel(t, c, ts)
	for _, ops := range backends(t) {
		if e := relative(newBenchOn(t, src, "f32", nil, ops).all(text), want); !(e <= 2e-5) {
			t.Errorf("%s: logits are off by %.2g of their deviation", ops.Name(), e)
		}
		if e := relative(newBenchOn(t, src, "f16", nil, ops).all(text), want); !(e <= 5e-3) {
			t.Errorf("%s: in f16 pages logits are off by %.2g of their deviation", ops.Name(), e)
		}
	}
	if !gguf {
		return
	}
	b := newBench(t, asGGUF(t, src, tensor.F32), "f32")
	if e := relative(b.all(text), want); !(e <= 2e-5) {
		t.Errorf("from GGUF logits are off by %.2g of their deviation", e)
	}
}

func none(*oracle) {}

func drop(suffixes ...string) func(*oracle) {
	return func(o *oracle) {
		for name := range o.weights {
			for _, s := range suffixes {
				if strings.HasSuffix(name, s) {
					delete(o.weights, name)
				}
			}
		}
	}
}

func TestQwen2(t *testing.T) {
	family(t, "qwen2", map[string]any{"use_sliding_window": false, "sliding_window": 64}, none, drop("q_proj.bias"), true)
}

func TestQwen3(t *testing.T) {
	family(t, "qwen3", nil, none, drop("q_norm.weight"), true)
	family(t, "qwen3", map[string]any{"attention_bias": true, "tie_word_embeddings": true}, none, drop("o_proj.bias"), true)
}

func TestMistral(t *testing.T) {
	family(t, "mistral", map[string]any{"rope_theta": 1e6}, none, func(o *oracle) {
		for i := range o.freq {
			o.freq[i] = math.Pow(1e4, -float64(i)/8)
		}
	}, false)
}

func TestLlamaBiases(t *testing.T) {
	family(t, "llama", map[string]any{"attention_bias": true, "mlp_bias": true}, none, drop("up_proj.bias"), true)
}

// Llama 3.1's scaling at a context so short that its three cases all occur:
// wavelengths below 64/4, above 64/1 and between.
func TestLlama3Scaling(t *testing.T) {
	scale := func(o *oracle) {
		for i, f := range o.freq {
			switch wave := 2 * math.Pi / f; {
			case wave < 16:
			case wave > 64:
				o.freq[i] = f / 8
			default:
				smooth := (64/wave - 1) / (4 - 1)
				o.freq[i] = (1-smooth)*f/8 + smooth*f
			}
		}
	}
	unscale := func(o *oracle) {
		for i := range o.freq {
			o.freq[i] = math.Pow(10000, -float64(i)/8)
		}
	}
	llama3 := map[string]any{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
	for _, key := range []string{"rope_type", "type"} {
		scaling := maps.Clone(llama3)
		scaling[key] = "llama3"
		family(t, "llama", map[string]any{"rope_scaling": scaling}, scale, unscale, false)
	}
	parameters := maps.Clone(llama3)
	parameters["rope_type"], parameters["rope_theta"] = "llama3", 10000.0
	family(t, "llama", map[string]any{"rope_parameters": parameters}, scale, unscale, false)
}

// Converters write the scaling as a tensor of divisors.
func TestGGUFRopeFreqs(t *testing.T) {
	c := small("llama", nil)
	ts := randomWeights("llama", c)
	divisors := []float32{1, 1, 1, 2, 3.5, 8, 8, 8}
	o := newOracle(c, ts)
	for i := range o.freq {
		o.freq[i] /= float64(divisors[i])
	}
	text := randomText(90)
	src := asGGUF(t, writeModel(t, c, ts), tensor.F32, weightstest.Tensor("rope_freqs.weight", tensor.F32, divisors, 8))
	if e := relative(newBench(t, src, "f32").all(text), o.logits(text)); !(e <= 2e-5) {
		t.Errorf("logits are off by %.2g of their deviation", e)
	}
}

func TestLinearScaling(t *testing.T) {
	family(t, "llama", map[string]any{"rope_scaling": map[string]any{"type": "linear", "factor": 4.0}}, func(o *oracle) {
		for i := range o.freq {
			o.freq[i] /= 4
		}
	}, func(o *oracle) { o.freq[0] = 1 }, false)
}

// YaRN changes the length of rotated heads as well.
func TestYarnMagnitude(t *testing.T) {
	yarn := map[string]any{"rope_type": "yarn", "factor": 1.0, "attention_factor": 1.3, "original_max_position_embeddings": 512}
	family(t, "qwen2", map[string]any{"rope_scaling": yarn}, func(o *oracle) { o.magnitude = 1.3 }, func(o *oracle) { o.magnitude = 1 }, false)
}

// Half of each head's channels do not turn.
func TestPartialRotary(t *testing.T) {
	half := func(o *oracle) {
		o.freq = nil
		for i := range 4 {
			o.freq = append(o.freq, math.Pow(10000, -float64(2*i)/8))
		}
	}
	family(t, "llama", map[string]any{"partial_rotary_factor": 0.5}, half, func(o *oracle) { o.freq = o.freq[:1] }, false)
}

// A weight of another shape is named with what was expected and found.
func TestBindNamesTheTensor(t *testing.T) {
	f := func(change func(c map[string]any, ts map[string]tensor.Tensor), want ...string) {
		t.Helper()
		c := small("qwen2", nil)
		ts := randomWeights("qwen2", c)
		change(c, ts)
		src := writeModel(t, c, ts)
		config, err := ConfigOf(src)
		if err == nil {
			_, err = Bind(config, src, ref.New(1))
		}
		if err == nil {
			t.Fatal("bound")
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("error %q does not say %q", err, w)
			}
		}
	}
	f(func(c map[string]any, _ map[string]tensor.Tensor) { c["vocab_size"] = 51 }, "model.embed_tokens.weight", "[51 48]", "[50 48]")
	f(func(c map[string]any, _ map[string]tensor.Tensor) { c["num_key_value_heads"] = 3 }, "layers.0.self_attn.k_proj.weight", "[48 48]", "[32 48]")
	f(func(c map[string]any, _ map[string]tensor.Tensor) { c["num_hidden_layers"] = 3 }, "model.layers.2.input_layernorm.weight")
	f(func(_ map[string]any, ts map[string]tensor.Tensor) {
		delete(ts, "model.layers.1.self_attn.v_proj.bias")
	}, "model.layers.1.self_attn.v_proj.bias")
	f(func(_ map[string]any, ts map[string]tensor.Tensor) { delete(ts, "lm_head.weight") }, "lm_head.weight")
	if _, err := Bind(Config{}, nil, nil); err == nil || !strings.Contains(err.Error(), "BUG") {
		t.Errorf("an empty configuration: %v", err)
	}
}
