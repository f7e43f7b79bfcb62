package synthetic

import (
	"fmt"
	"iter"
)

// Kinds of tokens, as GGUF numbers them.
const (
	kindNormal  int32 = 1
	kindUnknown int32 = 2
	kindControl int32 = 3
	kindByte    int32 = 6
)

const letters = "abcdefghijklmnopqrstuvwxyz"

// template lets chats run: nothing was trained, so nothing depends on it.
const template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}" +
	"{% if add_generation_prompt %}assistant:{% endif %}"

// vocabulary is the tokenizer's metadata.
func (s *Shape) vocabulary() (map[string]any, error) {
	if s.Words == Merged {
		return merged(s.Vocab)
	}
	return scored(s.Vocab)
}

// words yields strings over the letters, begun by space or not, each of them the
// string one letter shorter and that letter: aa, ab, …, zz, aaa, …
func words(space string) iter.Seq2[string, string] {
	return func(yield func(head, last string) bool) {
		short := []string{space}
		for _, c := range letters {
			short = append(short, string(c))
		}
		for {
			var longer []string
			for _, head := range short {
				for _, c := range letters {
					if !yield(head, string(c)) {
						return
					}
					longer = append(longer, head+string(c))
				}
			}
			short = longer
		}
	}
}

// scored is a SentencePiece vocabulary of n tokens: three specials, 256 bytes,
// then printable characters and words, the earlier the better.
func scored(n int) (map[string]any, error) {
	tokens, kinds := []string{"<unk>", "<s>", "</s>"}, []int32{kindUnknown, kindControl, kindControl}
	for b := range 256 {
		tokens, kinds = append(tokens, fmt.Sprintf("<0x%02X>", b)), append(kinds, kindByte)
	}
	const space = "▁"
	tokens = append(tokens, space)
	for c := rune('!'); c <= '~'; c++ {
		tokens = append(tokens, string(c))
	}
	if n < len(tokens) {
		return nil, fmt.Errorf("a vocabulary has at least %d tokens", len(tokens))
	}
	for head, last := range words(space) {
		if len(tokens) >= n {
			break
		}
		tokens = append(tokens, head+last)
	}
	scores := make([]float32, n)
	for i := range scores {
		scores[i] = -float32(i)
	}
	for len(kinds) < n {
		kinds = append(kinds, kindNormal)
	}
	return map[string]any{
		"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.scores": scores, "tokenizer.ggml.token_type": kinds,
		"tokenizer.ggml.unknown_token_id": uint32(0), "tokenizer.ggml.bos_token_id": uint32(1),
		"tokenizer.ggml.eos_token_id": uint32(2), "tokenizer.ggml.add_bos_token": true,
		"tokenizer.chat_template": template,
	}, nil
}

// specials are the tokens at the end of a merged vocabulary, as Llama 3 has them.
const specials = 256

// merged is a byte-level BPE vocabulary of n tokens: the 256 bytes, words, and
// special tokens.
func merged(n int) (map[string]any, error) {
	const space = "Ġ"
	if n < 256+specials {
		return nil, fmt.Errorf("a vocabulary has at least %d tokens", 256+specials)
	}
	tokens := alphabet()
	var merges []string
	for head, last := range words(space) {
		if len(tokens) >= n-specials {
			break
		}
		tokens, merges = append(tokens, head+last), append(merges, head+" "+last)
	}
	kinds := make([]int32, n)
	for i := range kinds {
		kinds[i] = kindNormal
		if i >= n-specials {
			kinds[i] = kindControl
		}
	}
	bos := len(tokens)
	named := map[int]string{0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>", 7: "<|end_header_id|>", 9: "<|eot_id|>"}
	for i := range specials {
		name, ok := named[i]
		if !ok {
			name = fmt.Sprintf("<|reserved_special_token_%d|>", i)
		}
		tokens = append(tokens, name)
	}
	return map[string]any{
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.merges": merges, "tokenizer.ggml.token_type": kinds,
		"tokenizer.ggml.bos_token_id": uint32(bos), "tokenizer.ggml.eos_token_id": uint32(bos + 9),
		"tokenizer.ggml.add_bos_token": true, "tokenizer.chat_template": template,
	}, nil
}

// alphabet is the 256 bytes as byte-level BPE writes them: printable Latin-1 as
// itself and the others moved past it.
func alphabet() []string {
	var all []string
	next := rune(256)
	for b := range rune(256) {
		if b >= '!' && b <= '~' || b >= '¡' && b <= '¬' || b >= '®' && b <= 'ÿ' {
			all = append(all, string(b))
			continue
		}
		all, next = append(all, string(next)), next+1
	}
	return all
}
