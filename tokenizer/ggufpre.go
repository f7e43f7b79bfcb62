package tokenizer

import (
	"fmt"
	"unicode"
)

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
