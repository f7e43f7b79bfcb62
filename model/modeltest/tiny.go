package modeltest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/weights"
	"github.com/terse-llm/terse/weights/weightstest"
)

// The shape of the tiny model: a Llama with grouped queries and the head size of
// real models, so that every KV format fits.
const (
	Layers  = 2
	Hidden  = 48
	Inner   = 96
	Heads   = 4
	KVHeads = 2
	HeadDim = 64
	Vocab   = 96
	Context = 2048
)

const config = `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": %d, "intermediate_size": %d,
 "num_hidden_layers": %d, "num_attention_heads": %d, "num_key_value_heads": %d, "head_dim": %d, "vocab_size": %d,
 "max_position_embeddings": %d, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
 "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1}`

// WriteTiny writes the model of a seed as a Hugging Face directory. Equal seeds
// give equal files.
func WriteTiny(t testing.TB, dir string, seed uint64) {
	t.Helper()
	text := fmt.Sprintf(config, Hidden, Inner, Layers, Heads, KVHeads, HeadDim, Vocab, Context)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := weightstest.WriteSafetensors(filepath.Join(dir, "model.safetensors"), tensors(seed)); err != nil {
		t.Fatal(err)
	}
}

// Tiny is the model of a seed, bound for a backend, and its fingerprint.
func Tiny(t testing.TB, seed uint64, ops kernels.Ops) (*model.Model, [32]byte) {
	t.Helper()
	dir := t.TempDir()
	WriteTiny(t, dir, seed)
	src, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return find(t, src).Bind(ops), src.Fingerprint()
}

// BuiltIn is the model in the binary, to be bound, and its calibration.
func BuiltIn(t testing.TB) (*model.Weights, *quant.Calibration) {
	t.Helper()
	src, cal := weightstest.BuiltIn(t)
	return find(t, src), cal
}

func find(t testing.TB, src *weights.Source) *model.Weights {
	t.Helper()
	c, err := model.ConfigOf(src)
	if err != nil {
		t.Fatal(err)
	}
	w, err := model.Find(c, src)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func tensors(seed uint64) []tensor.Tensor {
	r := rand.New(rand.NewPCG(seed, 16))
	// Blocks that outweigh the residual, and an output embedding of its own, keep
	// greedy text from repeating one token, which would prove nothing; a large
	// output embedding keeps it from hanging on rounding.
	normal := func(name string, scale float64, shape ...int) tensor.Tensor {
		n := 1
		for _, d := range shape {
			n *= d
		}
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64() * scale)
		}
		return weightstest.Tensor(name, tensor.F32, v, shape...)
	}
	ones := func(name string) tensor.Tensor {
		v := make([]float32, Hidden)
		for i := range v {
			v[i] = 1
		}
		return weightstest.Tensor(name, tensor.F32, v, Hidden)
	}
	all := []tensor.Tensor{normal("model.embed_tokens.weight", 0.5, Vocab, Hidden), ones("model.norm.weight"),
		normal("lm_head.weight", 1, Vocab, Hidden)}
	for l := range Layers {
		p := fmt.Sprintf("model.layers.%d.", l)
		all = append(all,
			ones(p+"input_layernorm.weight"), ones(p+"post_attention_layernorm.weight"),
			normal(p+"self_attn.q_proj.weight", 0.2, Heads*HeadDim, Hidden),
			normal(p+"self_attn.k_proj.weight", 0.2, KVHeads*HeadDim, Hidden),
			normal(p+"self_attn.v_proj.weight", 0.2, KVHeads*HeadDim, Hidden),
			normal(p+"self_attn.o_proj.weight", 0.4, Hidden, Heads*HeadDim),
			normal(p+"mlp.gate_proj.weight", 0.2, Inner, Hidden),
			normal(p+"mlp.up_proj.weight", 0.2, Inner, Hidden),
			normal(p+"mlp.down_proj.weight", 0.3, Hidden, Inner))
	}
	return all
}
