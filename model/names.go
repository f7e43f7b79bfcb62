package model

import "fmt"

// layout is how a kind of file names the family's tensors. The zero value names
// nothing.
type layout uint8

const (
	huggingFace layout = iota + 1
	gguf
)

// part is a tensor's role in the graph, without ".weight" or ".bias".
type part uint8

const (
	partEmbed part = iota
	partNorm
	partHead
	partRopeFreqs // GGUF only: divisors of the rotary frequencies
	partAttnNorm  // from here on of a layer
	partQ
	partK
	partV
	partOut
	partQNorm
	partKNorm
	partMLPNorm
	partGate
	partUp
	partDown
)

var names = map[layout]map[part]string{
	huggingFace: {
		partEmbed: "model.embed_tokens", partNorm: "model.norm", partHead: "lm_head",
		partAttnNorm: "model.layers.%d.input_layernorm",
		partQ:        "model.layers.%d.self_attn.q_proj", partK: "model.layers.%d.self_attn.k_proj",
		partV: "model.layers.%d.self_attn.v_proj", partOut: "model.layers.%d.self_attn.o_proj",
		partQNorm: "model.layers.%d.self_attn.q_norm", partKNorm: "model.layers.%d.self_attn.k_norm",
		partMLPNorm: "model.layers.%d.post_attention_layernorm",
		partGate:    "model.layers.%d.mlp.gate_proj", partUp: "model.layers.%d.mlp.up_proj",
		partDown: "model.layers.%d.mlp.down_proj",
	},
	gguf: {
		partEmbed: "token_embd", partNorm: "output_norm", partHead: "output", partRopeFreqs: "rope_freqs",
		partAttnNorm: "blk.%d.attn_norm",
		partQ:        "blk.%d.attn_q", partK: "blk.%d.attn_k", partV: "blk.%d.attn_v", partOut: "blk.%d.attn_output",
		partQNorm: "blk.%d.attn_q_norm", partKNorm: "blk.%d.attn_k_norm",
		partMLPNorm: "blk.%d.ffn_norm",
		partGate:    "blk.%d.ffn_gate", partUp: "blk.%d.ffn_up", partDown: "blk.%d.ffn_down",
	},
}

// name is the tensor's name in the file; layer counts for parts of a layer only.
func (l layout) name(p part, layer int, suffix string) string {
	stem := names[l][p]
	if p >= partAttnNorm {
		stem = fmt.Sprintf(stem, layer)
	}
	return stem + suffix
}
