package tokenizer

import (
	"fmt"
	"slices"
	"unicode"

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

// preName is the pre-tokenizer's name. Files from before the format had one can
// only be told by their architecture.
func (m ggufMeta) preName() string {
	if name, ok := m["tokenizer.ggml.pre"].(string); ok {
		return name
	}
	switch m["general.architecture"] {
	case "gpt2", "gptneox":
		return "gpt-2"
	}
	return ""
}

// Split patterns of DeepSeek's tokenizers.
const (
	patternDeepSeekHan   = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
	patternDeepSeekPunct = `\s?` + "[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
	patternDeepSeek3Kana = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
	// The cased letters that DeepSeek-LLM knew.
	patternDeepSeekLetters = `\s?` + "[" +
		"A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af" +
		"\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5" +
		"\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba" +
		"\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45" +
		"\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe" +
		"\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102" +
		"\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139" +
		"\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3" +
		"\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06" +
		"\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3" +
		"\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df" +
		"\U0001e900-\U0001e943]+"
	patternDeepSeek3 = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
	patternO200K     = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternTekken    = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// ggufPre sets the steps that a pre-tokenizer's name stands for, and returns
// whether its models begin with BOS where the file is silent.
func (b *builder) ggufPre(name string) (addBOS bool, err error) {
	digit := runes(unicode.IsNumber, false)
	switch name {
	case "gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "trillion":
		return false, b.patterns(patternGPT2)
	case "llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral":
		b.wholeFirst = true
		return true, b.patterns(patternLlama3)
	case "dbrx", "smaug-bpe", "chatglm-bpe":
		return false, b.patterns(patternLlama3)
	case "qwen2", "deepseek-r1-qwen":
		nfc, _ := unicodeForm("NFC")
		b.norm = normalizer{nfc}
		return false, b.patterns(patternQwen2)
	case "starcoder", "refact", "smollm", "codeshell":
		b.pre = []preStep{splitStep(digit, isolate, false)}
		return false, b.patterns(patternGPT2)
	case "falcon":
		return false, b.falconPre()
	case "deepseek-llm":
		err = b.patterns(`[\r\n]`, patternDeepSeekLetters, patternDeepSeekPunct, `\s+$`, patternDeepSeekHan)
		b.pre = append(b.pre, splitStep(digit, isolate, false))
		return false, err
	case "deepseek-coder":
		err = b.patterns(`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, patternDeepSeekHan)
		b.pre = append(b.pre, splitStep(digit, isolate, false))
		return false, err
	case "deepseek-v3":
		return false, b.patterns(`\p{N}{1,3}`, patternDeepSeek3Kana, patternDeepSeek3)
	case "gpt-4o", "llama4":
		return false, b.patterns(patternO200K)
	case "tekken":
		b.wholeFirst = true
		return true, b.patterns(patternTekken)
	case "":
		return false, fmt.Errorf("tokenizer.ggml.pre is missing, so it is unknown how text is split; convert the model again")
	}
	return false, fmt.Errorf("tokenizer.ggml.pre %.40q is not supported", name)
}

// falconPre is Falcon's pre-tokenizer. Its digit steps come after the byte
// level one and so look at bytes; the model was trained with that.
func (b *builder) falconPre() error {
	three, err := compilePattern(`[0-9][0-9][0-9]`)
	if err != nil {
		return err
	}
	p := preParser{steps: []preStep{splitStep(runes(isPunctuation, false), contiguous, false)}}
	if err := p.whole(byteLevelStep(false, true), true); err != nil {
		return err
	}
	p.split(runes(unicode.IsNumber, true), isolate, false)
	p.split(three, isolate, false)
	b.pre = p.steps
	return nil
}

// patterns appends a splitting step for each pattern.
func (b *builder) patterns(list ...string) error {
	for _, pattern := range list {
		find, err := compilePattern(pattern)
		if err != nil {
			return err
		}
		b.pre = append(b.pre, splitStep(find, isolate, false))
	}
	return nil
}

// ggufMeta reads metadata values whatever their Go types.
type ggufMeta map[string]any

// vocabulary reads tokens, scores and kinds, all of one length, and the names
// of the special tokens.
func (m ggufMeta) vocabulary() (*spVocab, error) {
	v := &spVocab{}
	var err error
	if v.tokens, err = m.strings("tokenizer.ggml.tokens", maxVocab); err != nil {
		return nil, err
	}
	n := len(v.tokens)
	if v.scores, err = numbers[float32](m, "tokenizer.ggml.scores", n); err != nil {
		return nil, err
	}
	if v.kinds, err = numbers[int32](m, "tokenizer.ggml.token_type", n); err != nil {
		return nil, err
	}
	if v.kinds == nil {
		v.kinds = slices.Repeat([]int32{kindNormal}, n)
	}
	for _, x := range []struct {
		key  string
		name *string
	}{
		{"bos", &v.names.bos}, {"eos", &v.names.eos}, {"padding", &v.names.pad}, {"unknown", &v.names.unk},
	} {
		key := "tokenizer.ggml." + x.key + "_token_id"
		id, ok := m.number(key)
		if ok && id >= uint64(n) {
			return nil, fmt.Errorf("%s is %d and the vocabulary has %d tokens", key, id, n)
		}
		if ok {
			*x.name = v.tokens[id]
		}
	}
	return v, nil
}

// flag is a boolean, or def where the key is missing.
func (m ggufMeta) flag(key string, def bool) bool {
	if b, ok := m[key].(bool); ok {
		return b
	}
	return def
}

// number is a non-negative integer.
func (m ggufMeta) number(key string) (uint64, bool) {
	v, ok := m[key]
	if !ok {
		return 0, false
	}
	f, ok := toNumber(v)
	if !ok || f < 0 {
		return 0, false
	}
	return uint64(f), true
}

// strings is an array of strings.
func (m ggufMeta) strings(key string, limit int) ([]string, error) {
	var out []string
	switch a := m[key].(type) {
	case []string:
		out = a
	case []any:
		out = make([]string, len(a))
		for i, v := range a {
			s, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("%s[%d] is a %T, not a string", key, i, v)
			}
			out[i] = s
		}
	default:
		return nil, fmt.Errorf("%s is missing or not an array of strings", key)
	}
	if len(out) == 0 || len(out) > limit {
		return nil, fmt.Errorf("%s has %d entries: want 1 to %d", key, len(out), limit)
	}
	return out, nil
}

// numbers is an array of n numbers, or nil where the key is missing.
func numbers[T float32 | int32](m ggufMeta, key string, n int) ([]T, error) {
	v, ok := m[key]
	if !ok {
		return nil, nil
	}
	var out []T
	switch a := v.(type) {
	case []T:
		out = a
	case []uint32:
		out = convert[T](a)
	case []int32:
		out = convert[T](a)
	case []float32:
		out = convert[T](a)
	case []float64:
		out = convert[T](a)
	case []any:
		out = make([]T, len(a))
		for i := range a {
			f, ok := toNumber(a[i])
			if !ok {
				return nil, fmt.Errorf("%s[%d] is a %T, not a number", key, i, a[i])
			}
			out[i] = T(f)
		}
	default:
		return nil, fmt.Errorf("%s is a %T, not an array of numbers", key, v)
	}
	if len(out) != n {
		return nil, fmt.Errorf("%s has %d entries and the vocabulary %d tokens", key, len(out), n)
	}
	return out, nil
}

func convert[T float32 | int32, F uint32 | int32 | float32 | float64](a []F) []T {
	out := make([]T, len(a))
	for i, v := range a {
		out[i] = T(v)
	}
	return out
}

// toNumber takes any numeric type; float64 holds all the values that matter.
func toNumber(v any) (float64, bool) {
	switch n := v.(type) {
	case uint8:
		return float64(n), true
	case int8:
		return float64(n), true
	case uint16:
		return float64(n), true
	case int16:
		return float64(n), true
	case uint32:
		return float64(n), true
	case int32:
		return float64(n), true
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case int:
		return float64(n), true
	case float32:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
