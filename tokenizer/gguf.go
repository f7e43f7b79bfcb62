package tokenizer

import (
	"fmt"

	"github.com/terse-llm/terse"
)

// FromGGUF builds the tokenizer of a GGUF file from its decoded metadata, keys
// as in the file ("tokenizer.ggml.tokens"). Arrays may be []any or slices of
// their element type; numbers may have any width.
func FromGGUF(meta map[string]any) (*Tokenizer, error) {
	t, err := fromGGUF(ggufMeta(meta))
	if err != nil {
		return nil, fmt.Errorf("cannot read the GGUF file's tokenizer: %w", err)
	}
	return t, nil
}

func fromGGUF(m ggufMeta) (*Tokenizer, error) {
	v, err := m.vocabulary()
	if err != nil {
		return nil, err
	}
	var t *Tokenizer
	var addBOS bool
	switch model, _ := m["tokenizer.ggml.model"].(string); model {
	case "llama":
		addBOS = true
		if t, err = m.sentencePiece(v); err != nil {
			return nil, err
		}
	case "gpt2":
		if t, addBOS, err = m.byteLevel(v); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model %.40q is not supported; known are llama and gpt2", model)
	}
	addBOS = m.flag("tokenizer.ggml.add_bos_token", addBOS)
	addEOS := m.flag("tokenizer.ggml.add_eos_token", false)
	t.around(&addBOS, &addEOS)
	m.stops(t)
	t.chatTemplate, _ = m["tokenizer.chat_template"].(string)
	return t, nil
}

// stops adds the tokens that end a turn.
func (m ggufMeta) stops(t *Tokenizer) {
	for _, key := range []string{"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"} {
		if id, ok := m.number(key); ok && id < maxVocab {
			t.addStop(terse.Token(id))
		}
	}
	// Many files name only one of the tokens that a chat model stops at.
	for _, name := range []string{"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"} {
		if id, ok := t.ID(name); ok && t.IsSpecial(id) {
			t.addStop(id)
		}
	}
}

// sentencePiece builds a model of scored tokens.
func (m ggufMeta) sentencePiece(v *spVocab) (*Tokenizer, error) {
	if v.scores == nil {
		return nil, fmt.Errorf("tokenizer.ggml.scores is missing")
	}
	v.prefixSpace = m.flag("tokenizer.ggml.add_space_prefix", true)
	if m.flag("tokenizer.ggml.remove_extra_whitespaces", false) {
		return nil, fmt.Errorf("tokenizer.ggml.remove_extra_whitespaces is not supported")
	}
	// The format has no place for Phi-3's rstrip flags; tokenizer.json has.
	if m["general.architecture"] == "phi3" {
		v.rstrip = func(token string) bool {
			return token != "<unk>" && token != "<s>" && token != "<|endoftext|>"
		}
	}
	return v.build()
}

// byteLevel builds a model of merges.
func (m ggufMeta) byteLevel(v *spVocab) (t *Tokenizer, addBOS bool, err error) {
	lines, err := m.strings("tokenizer.ggml.merges", maxMerges)
	if err != nil {
		return nil, false, err
	}
	b := builder{vocab: make(map[string]int32, len(v.tokens)), byteLevel: true, names: v.names,
		merges: make([][2]string, len(lines))}
	for i, line := range lines {
		if b.merges[i], err = parseMerge(line); err != nil {
			return nil, false, fmt.Errorf("merge %d: %w", i, err)
		}
	}
	for i, token := range v.tokens {
		if _, twice := b.vocab[token]; twice {
			return nil, false, fmt.Errorf("token %.40q is there twice, at %d too", token, i)
		}
		b.vocab[token] = int32(i)
		if kind := v.kinds[i]; !ordinary(kind) {
			b.added = append(b.added, addedToken{id: terse.Token(i), content: token,
				special: kind != kindUser, hidden: kind == kindUnused})
		}
	}
	if addBOS, err = b.ggufPre(m.preName()); err != nil {
		return nil, false, err
	}
	t, err = b.build()
	return t, addBOS, err
}
