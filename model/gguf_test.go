package model

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/weights"
	"github.com/terse-llm/terse/weights/weightstest"
)

// pairUp orders rows of q or k as GGUF's Llama converters do: within each head,
// row i of the first half beside row i of the second.
func pairUp(w []float32, heads, in int) []float32 {
	d := len(w) / in / heads
	out := make([]float32, 0, len(w))
	for h := range heads {
		for i := range d {
			row := h*d + i%2*d/2 + i/2
			out = append(out, w[row*in:(row+1)*in]...)
		}
	}
	return out
}

// ggufName is a Hugging Face tensor's name in GGUF.
var ggufName = strings.NewReplacer(
	"model.embed_tokens", "token_embd", "model.norm", "output_norm", "lm_head", "output", "model.layers.", "blk.",
	"input_layernorm", "attn_norm", "post_attention_layernorm", "ffn_norm",
	"self_attn.q_proj", "attn_q", "self_attn.k_proj", "attn_k", "self_attn.v_proj", "attn_v", "self_attn.o_proj", "attn_output",
	"self_attn.q_norm", "attn_q_norm", "self_attn.k_norm", "attn_k_norm",
	"mlp.gate_proj", "ffn_gate", "mlp.up_proj", "ffn_up", "mlp.down_proj", "ffn_down")

// asGGUF writes the model of a directory as a GGUF file whose matrices are of
// type dt.
func asGGUF(t *testing.T, src *weights.Source, dt tensor.DType, extra ...tensor.Tensor) *weights.Source {
	t.Helper()
	c, err := ConfigOf(src)
	if err != nil {
		t.Fatal(err)
	}
	arch := c.Family
	meta := map[string]any{
		"general.architecture": arch, arch + ".block_count": uint32(c.Layers), arch + ".embedding_length": uint32(c.Hidden),
		arch + ".feed_forward_length": uint32(c.Intermediate), arch + ".context_length": uint32(c.MaxContext),
		arch + ".attention.head_count": uint32(c.Heads), arch + ".attention.head_count_kv": uint32(c.KVHeads),
		arch + ".attention.key_length": uint32(c.HeadDim), arch + ".attention.value_length": uint32(c.HeadDim),
		arch + ".attention.layer_norm_rms_epsilon": c.NormEps, arch + ".vocab_size": uint32(c.VocabSize),
		arch + ".rope.freq_base": float32(c.Rotary.Theta), arch + ".rope.dimension_count": uint32(c.HeadDim),
	}
	tensors := extra
	for _, name := range src.Names() {
		from, err := src.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		values := weightstest.Values(from)
		in := 1 // of a bias, whose elements go with the rows
		if len(from.Shape) == 2 {
			in = from.Shape[1]
		}
		if arch == "llama" && strings.Contains(name, ".q_proj.") {
			values = pairUp(values, c.Heads, in)
		} else if arch == "llama" && strings.Contains(name, ".k_proj.") {
			values = pairUp(values, c.KVHeads, in)
		}
		f32 := weightstest.Tensor(ggufName.Replace(name), tensor.F32, values, from.Shape...)
		if len(from.Shape) == 2 {
			f32 = weightstest.Convert(f32, dt)
		}
		tensors = append(tensors, f32)
	}
	path := filepath.Join(t.TempDir(), "model.gguf")
	if err := weightstest.WriteGGUF(path, meta, tensors); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

// The built-in model as a GGUF file of every type. BF16 is what it is made of
// and F16 holds all but its smallest weights; a code of b bits is off by up to
// half a step of 2^-b of its block's range, which 8 layers carry to the logits.
// The figure is the logits' rms error over their standard deviation; q4 of this
// small model is known to be coarse. Block types are multiplied by activations of
// 8 bits, which adds as much as the codes of Q8_0 do.
func TestGGUFTypes(t *testing.T) {
	src, _ := weightstest.BuiltIn(t)
	text := readGolden(t).Scored[3].IDs[:64]
	want := newBench(t, src, "f32").all(text)
	f := func(dt tensor.DType, bound float64) {
		t.Helper()
		b := newBench(t, asGGUF(t, src, dt), "f32")
		got := b.all(text)
		if e := relative(got, want); !(e <= bound) {
			t.Errorf("%v: logits are off by %.2g of their deviation, bound %g", dt, e, bound)
		} else {
			t.Logf("%v: %.2g of %g allowed", dt, e, bound)
		}
		if !b.model.Config.Rotary.Interleaved {
			t.Errorf("%v: rotary channels are not paired side by side", dt)
		}
	}
	f(tensor.BF16, 1e-5)
	f(tensor.F16, 1e-5)
	f(tensor.Q8_0, 0.03)
	f(tensor.Q4_0, 0.3)
	if testing.Short() {
		return
	}
	f(tensor.Q6_K, 0.04)
	f(tensor.Q5_K, 0.08)
	f(tensor.Q4_K, 0.15)
}
