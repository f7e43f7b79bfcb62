package tokenizer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/terse-llm/terse"
)

// fromVocab builds the tokenizer of vocab.json and merges.txt. These files do
// not say how text is split, so the class in tokenizer_config.json must.
func fromVocab(vocab []byte, fsys fs.FS, cfg *config) (*Tokenizer, error) {
	b := builder{byteLevel: true, names: cfg.names()}
	if err := json.Unmarshal(vocab, &b.vocab); err != nil {
		return nil, err
	}
	if err := b.class(cfg.Class); err != nil {
		return nil, err
	}
	text, err := readFile(fsys, "merges.txt")
	if err != nil {
		return nil, err
	}
	if b.merges, err = parseMerges(string(text)); err != nil {
		return nil, fmt.Errorf("merges.txt: %w", err)
	}
	if err := b.addConfig(cfg); err != nil {
		return nil, err
	}
	t, err := b.build()
	if err != nil {
		return nil, err
	}
	t.around(cfg.AddBOS, cfg.AddEOS)
	return t, nil
}

// class sets what a Hugging Face tokenizer class does with vocab.json.
func (b *builder) class(name string) error {
	switch strings.TrimSuffix(name, "Fast") {
	case "GPT2Tokenizer":
		b.pre = []preStep{byteLevelStep(false, true)}
		// The class's own defaults, where the configuration is silent.
		for _, n := range []*string{&b.names.bos, &b.names.eos, &b.names.unk} {
			if *n == "" {
				*n = "<|endoftext|>"
			}
		}
	case "Qwen2Tokenizer":
		nfc, _ := unicodeForm("NFC")
		b.norm = normalizer{nfc}
		b.pre = []preStep{splitStep(knownPattern(patternQwen2), isolate, false)}
	case "":
		return fmt.Errorf("vocab.json and merges.txt do not say how text is split: " +
			"add tokenizer.json, or tokenizer_config.json with tokenizer_class GPT2Tokenizer or Qwen2Tokenizer")
	default:
		return fmt.Errorf("tokenizer_class %.40q is not supported without tokenizer.json; known are GPT2Tokenizer and Qwen2Tokenizer", name)
	}
	return nil
}

// addConfig adds the tokens of tokenizer_config.json and added_tokens.json, and
// named tokens that neither lists.
func (b *builder) addConfig(cfg *config) error {
	listed := map[string]bool{}
	for key, a := range cfg.Added {
		id, err := strconv.Atoi(key)
		if err != nil {
			return fmt.Errorf("added_tokens_decoder has id %.40q", key)
		}
		a.ID = id
		b.addHF(a)
		listed[a.Content] = true
	}
	add := func(content string, id int32) {
		if !listed[content] {
			b.addHF(hfAdded{ID: int(id), Content: content, Special: true})
			listed[content] = true
		}
	}
	for content, id := range cfg.addedTokens {
		add(content, id)
	}
	n := b.names
	for _, name := range []string{n.bos, n.eos, n.pad, n.unk} {
		if id, ok := b.vocab[name]; ok && name != "" {
			add(name, id)
		}
	}
	return nil
}

// parseMerges reads merges.txt: a pair a line, after a line "#version".
func parseMerges(text string) ([][2]string, error) {
	var out [][2]string
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if line == "" || n == 1 && strings.HasPrefix(line, "#version") {
			continue
		}
		pair, err := parseMerge(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, pair)
	}
	return out, nil
}

// fromModelFile tells the two formats called tokenizer.model apart: text lines
// of base64, or a protocol buffer, whose first byte is a tag.
func fromModelFile(data []byte, cfg *config) (*Tokenizer, error) {
	if len(data) > 0 && data[0] == spTagPiece {
		return fromSentencePiece(data, cfg)
	}
	return fromTiktoken(string(data), cfg)
}

// llama3Ranks is how many ranks Llama 3's tokenizer.model has; its special
// tokens follow. The file names neither them nor the split pattern, so no other
// tiktoken vocabulary can be read without guessing.
const llama3Ranks = 128_000

func fromTiktoken(text string, cfg *config) (*Tokenizer, error) {
	b := builder{byteLevel: true, wholeFirst: true, vocab: map[string]int32{}, names: cfg.names()}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if strings.TrimSpace(line) == "" {
			continue
		}
		token, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		raw, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			return nil, fmt.Errorf("line %d is neither SentencePiece nor tiktoken: %w", n, err)
		}
		rank, err := strconv.Atoi(number)
		if err != nil || rank != len(b.vocab) || len(b.vocab) >= maxVocab {
			return nil, fmt.Errorf("line %d has rank %.20q: want %d", n, number, len(b.vocab))
		}
		spelled := toAlphabet(string(raw))
		if _, twice := b.vocab[spelled]; twice || len(raw) == 0 {
			return nil, fmt.Errorf("line %d repeats a token", n)
		}
		b.vocab[spelled] = int32(rank)
		b.ranks = append(b.ranks, int32(rank))
	}
	if len(b.vocab) != llama3Ranks {
		return nil, fmt.Errorf("a tiktoken file of %d ranks is not Llama 3's (%d); use tokenizer.json", len(b.vocab), llama3Ranks)
	}
	b.pre = []preStep{splitStep(knownPattern(patternLlama3), isolate, false)}
	b.llama3Special(cfg)
	t, err := b.build()
	if err != nil {
		return nil, err
	}
	yes := true
	t.around(&yes, nil)
	t.around(cfg.AddBOS, cfg.AddEOS)
	if id, ok := t.ID("<|eot_id|>"); ok {
		t.addStop(id)
	}
	return t, nil
}

// llama3Special adds the 256 special tokens in the order of Meta's release.
func (b *builder) llama3Special(cfg *config) {
	first := []string{
		"<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
		"<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>",
		"<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
	}
	for i := range 256 {
		name := fmt.Sprintf("<|reserved_special_token_%d|>", i-len(first)+2)
		if i < len(first) {
			name = first[i]
		}
		b.added = append(b.added, addedToken{id: terse.Token(llama3Ranks + i), content: name, special: true})
	}
	if b.names.bos == "" {
		b.names.bos = first[0]
	}
	if b.names.eos == "" {
		b.names.eos = first[1]
	}
}
