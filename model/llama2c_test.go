package model

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/weights"
	"github.com/terse-llm/terse/weights/weightstest"
)

// llama2c is a model in the file format of llama2.c, version 0.
type llama2c struct {
	dim, hidden, layers, heads, kvHeads, vocab, context int
	tensors                                             map[string][]float32 // by the roles below, layers side by side
}

func readLlama2c(t *testing.T, file []byte) llama2c {
	t.Helper()
	r := bytes.NewReader(file)
	var head [7]int32
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		t.Fatal(err)
	}
	var m llama2c
	for i, p := range []*int{&m.dim, &m.hidden, &m.layers, &m.heads, &m.kvHeads, &m.vocab, &m.context} {
		*p = int(head[i])
	}
	kv := m.dim * m.kvHeads / m.heads
	m.tensors = map[string][]float32{}
	for _, p := range []struct {
		role string
		n    int
	}{
		{"embed", m.vocab * m.dim}, {"attn_norm", m.layers * m.dim},
		{"q", m.layers * m.dim * m.dim}, {"k", m.layers * kv * m.dim}, {"v", m.layers * kv * m.dim}, {"out", m.layers * m.dim * m.dim},
		{"mlp_norm", m.layers * m.dim},
		{"gate", m.layers * m.hidden * m.dim}, {"down", m.layers * m.dim * m.hidden}, {"up", m.layers * m.hidden * m.dim},
		{"norm", m.dim}, {"rope", m.context * m.dim / m.heads},
	} {
		m.tensors[p.role] = make([]float32, p.n)
		if err := binary.Read(r, binary.LittleEndian, m.tensors[p.role]); err != nil {
			t.Fatalf("%s: %v", p.role, err)
		}
	}
	if r.Len() != 0 {
		t.Fatalf("%d bytes left over", r.Len())
	}
	return m
}

// write gives the model under other names; q and k may change their rows.
func (m llama2c) write(names map[string]string, rows func(w []float32, heads int) []float32) []tensor.Tensor {
	f32 := func(name string, v []float32, shape ...int) tensor.Tensor {
		return weightstest.Tensor(name, tensor.F32, v, shape...)
	}
	kv := m.dim * m.kvHeads / m.heads
	tensors := []tensor.Tensor{
		f32(names["embed"], m.tensors["embed"], m.vocab, m.dim), f32(names["norm"], m.tensors["norm"], m.dim),
	}
	for i := range m.layers {
		for _, p := range []struct {
			role  string
			shape []int
		}{
			{"attn_norm", []int{m.dim}}, {"mlp_norm", []int{m.dim}},
			{"q", []int{m.dim, m.dim}}, {"k", []int{kv, m.dim}}, {"v", []int{kv, m.dim}}, {"out", []int{m.dim, m.dim}},
			{"gate", []int{m.hidden, m.dim}}, {"up", []int{m.hidden, m.dim}}, {"down", []int{m.dim, m.hidden}},
		} {
			n := tensor.Tensor{Shape: p.shape}.Elems()
			v := m.tensors[p.role][i*n : (i+1)*n]
			switch p.role {
			case "q":
				v = rows(v, m.heads)
			case "k":
				v = rows(v, m.kvHeads)
			}
			tensors = append(tensors, f32(fmt.Sprintf(names[p.role], i), v, p.shape...))
		}
	}
	return tensors
}

// asGGUF keeps the rows: llama2.c pairs neighbours, as GGUF's Llama does.
func (m llama2c) asGGUF(t *testing.T) *weights.Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.gguf")
	meta := map[string]any{
		"general.architecture": "llama", "llama.block_count": uint32(m.layers), "llama.embedding_length": uint32(m.dim),
		"llama.feed_forward_length": uint32(m.hidden), "llama.context_length": uint32(m.context),
		"llama.attention.head_count": uint32(m.heads), "llama.attention.head_count_kv": uint32(m.kvHeads),
		"llama.attention.layer_norm_rms_epsilon": float32(1e-5), "llama.vocab_size": uint32(m.vocab),
	}
	names := map[string]string{
		"embed": "token_embd.weight", "norm": "output_norm.weight", "attn_norm": "blk.%d.attn_norm.weight", "mlp_norm": "blk.%d.ffn_norm.weight",
		"q": "blk.%d.attn_q.weight", "k": "blk.%d.attn_k.weight", "v": "blk.%d.attn_v.weight", "out": "blk.%d.attn_output.weight",
		"gate": "blk.%d.ffn_gate.weight", "up": "blk.%d.ffn_up.weight", "down": "blk.%d.ffn_down.weight",
	}
	same := func(w []float32, _ int) []float32 { return w }
	if err := weightstest.WriteGGUF(path, meta, m.write(names, same)); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

// asHF parts each head's rows into even and odd ones, which pairs (i, i+d/2).
func (m llama2c) asHF(t *testing.T) *weights.Source {
	t.Helper()
	dir := t.TempDir()
	config := fmt.Sprintf(`{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":%d,"intermediate_size":%d,
		"num_hidden_layers":%d,"num_attention_heads":%d,"num_key_value_heads":%d,"vocab_size":%d,"max_position_embeddings":%d,
		"rms_norm_eps":1e-5,"hidden_act":"silu","tie_word_embeddings":true}`, m.dim, m.hidden, m.layers, m.heads, m.kvHeads, m.vocab, m.context)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	layer := "model.layers.%d."
	names := map[string]string{
		"embed": "model.embed_tokens.weight", "norm": "model.norm.weight",
		"attn_norm": layer + "input_layernorm.weight", "mlp_norm": layer + "post_attention_layernorm.weight",
		"q": layer + "self_attn.q_proj.weight", "k": layer + "self_attn.k_proj.weight", "v": layer + "self_attn.v_proj.weight", "out": layer + "self_attn.o_proj.weight",
		"gate": layer + "mlp.gate_proj.weight", "up": layer + "mlp.up_proj.weight", "down": layer + "mlp.down_proj.weight",
	}
	apart := func(w []float32, heads int) []float32 {
		d := len(w) / m.dim / heads
		out := make([]float32, 0, len(w))
		for h := range heads {
			for half := range 2 {
				for i := range d / 2 {
					row := h*d + 2*i + half
					out = append(out, w[row*m.dim:(row+1)*m.dim]...)
				}
			}
		}
		return out
	}
	if err := weightstest.WriteShards(dir, 2, m.write(names, apart)); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

// llama2cGolden is what an independent program computed in float64.
type llama2cGolden struct {
	BOS    terse.Token          `json:"bos"`
	Greedy []terse.Token        `json:"greedy_ids"` // after BOS
	Input  []terse.Token        `json:"input_ids_for_logits"`
	Logits map[string][]float64 `json:"logits_f64"` // after position
	Prompt []terse.Token        `json:"prompt2_ids"`
	Answer []terse.Token        `json:"prompt2_greedy_ids"`
}

// check runs the model in one layout of its weights. In float32 pages nothing
// but the order of sums differs from the golden program.
func (g llama2cGolden) check(t *testing.T, src *weights.Source) {
	t.Helper()
	b := newBench(t, src, "f32")
	rows := b.all(g.Input)
	for pos, want := range g.Logits {
		var at int
		if _, err := fmt.Sscan(pos, &at); err != nil {
			t.Fatal(err)
		}
		if len(want) != b.model.Config.VocabSize {
			t.Fatalf("%d logits for a vocabulary of %d", len(want), b.model.Config.VocabSize)
		}
		for i, w := range want {
			if d := math.Abs(float64(rows[at][i]) - w); !(d <= 1e-4) {
				t.Fatalf("logit %d after position %d is %g, want %g", i, at, rows[at][i], w)
			}
		}
	}
	s := b.newSequence()
	b.follow(&answer{s, b.feed(s, []terse.Token{g.BOS}, 1), g.Greedy})
	if g.Prompt != nil {
		s = b.newSequence()
		b.follow(&answer{s, b.feed(s, g.Prompt, 5), g.Answer})
	}
}

func TestStories260K(t *testing.T) {
	f, err := os.Open(filepath.Join("testdata", "stories260K.bin.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	file, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var g llama2cGolden
	readJSON(t, filepath.Join("testdata", "stories260K.json"), &g)
	m := readLlama2c(t, file)
	t.Run("gguf", func(t *testing.T) { g.check(t, m.asGGUF(t)) })
	t.Run("huggingface", func(t *testing.T) { g.check(t, m.asHF(t)) })
}

func TestBabyLlama(t *testing.T) {
	data := os.Getenv("TERSE_TEST_DATA")
	if data == "" {
		t.Skip("TERSE_TEST_DATA does not name the folder with tiny-llama-weights/babyllama105.bin")
	}
	file, err := os.ReadFile(filepath.Join(data, "tiny-llama-weights", "babyllama105.bin"))
	if err != nil {
		t.Skip(err)
	}
	var all map[string]llama2cGolden
	readJSON(t, filepath.Join(data, "tiny-llama-weights", "golden.json"), &all)
	all["babyllama105"].check(t, readLlama2c(t, file).asGGUF(t))
}
