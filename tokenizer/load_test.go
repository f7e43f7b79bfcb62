package tokenizer

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
	"github.com/terse-llm/terse"
)

func jsonFS(text string) fstest.MapFS {
	return fstest.MapFS{"tokenizer.json": {Data: []byte(text)}}
}

func loadJSON(t testing.TB, text string) *Tokenizer {
	t.Helper()
	tok, err := Load(jsonFS(text))
	require.NoError(t, err)
	return tok
}

// tinyModel is the smallest useful tokenizer.json; %s takes more sections.
const tinyModel = `{%s"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"▁":3,"▁a":4},"merges":[["a","b"],["▁","a"]]},"decoder":{"type":"Fuse"}}`

// TestUnknownComponents: what this package cannot do is refused by name.
func TestUnknownComponents(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, err := Load(jsonFS(text))
		for _, w := range append(want, "cannot read tokenizer.json") {
			require.ErrorContains(t, err, w)
		}
	}
	part := func(section string) string { return fmt.Sprintf(tinyModel, section+",") }
	f(part(`"normalizer":{"type":"Precompiled"}`), "normalizer", "Precompiled")
	f(part(`"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Nmt"}]}`), "Nmt")
	f(part(`"normalizer":{"type":"Replace","pattern":{"Regex":"a"},"content":"b"}`), "regular expression")
	f(part(`"normalizer":{"type":"Replace","pattern":{"String":"a"},"content":"01234567890123456789"}`), "longer")
	f(part(`"pre_tokenizer":{"type":"UnicodeScripts"}`), "pre_tokenizer", "UnicodeScripts")
	f(part(`"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"}`), "compile")
	f(part(`"pre_tokenizer":{"type":"Split","pattern":{"Regex":"[[:alpha:]]"},"behavior":"Isolated"}`), "[[:")
	f(part(`"pre_tokenizer":{"type":"Split","pattern":{"String":"x"},"behavior":"Odd"}`), "Odd")
	f(part(`"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"odd"}`), "odd")
	f(part(`"post_processor":{"type":"BertProcessing"}`), "post_processor", "BertProcessing")
	f(part(`"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}]}`), `"x"`)
	f(part(`"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},{"Sequence":{"id":"A"}}],"special_tokens":{"x":{"ids":[99]}}}`), "99")
	f(part(`"added_tokens":[{"id":-1,"content":"x"}]`), "ids go from")
	f(part(`"added_tokens":[{"id":4294967296,"content":"x"}]`), "ids go from")
	f(part(`"added_tokens":[{"id":1,"content":"x"}]`), "another token")
	f(part(`"added_tokens":[{"id":9,"content":"a"}]`), "added tokens")
	f(part(`"normalizer":`+strings.Repeat(`{"type":"Sequence","normalizers":[`, 20)+strings.Repeat(`]}`, 20)), "nested")
	model := func(m string) string { return `{"decoder":{"type":"Fuse"},"model":` + m + `}` }
	f(model(`{"type":"Unigram","vocab":{}}`), "Unigram")
	f(model(`{"type":"WordPiece","vocab":{"a":0}}`), "WordPiece")
	f(model(`{"type":"BPE","vocab":{}}`), "empty")
	f(model(`{"type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.1}`), "dropout")
	f(model(`{"type":"BPE","vocab":{"a":0},"merges":[],"end_of_word_suffix":"</w>"}`), "end_of_word_suffix")
	f(model(`{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}`), "merge 0")
	f(model(`{"type":"BPE","vocab":{"a":0},"merges":["a"]}`), "merge 0")
	f(model(`{"type":"BPE","vocab":{"a":0},"merges":[["a"]]}`), "merge 0")
	f(model(`{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}`), "more than one")
	f(model(`{"type":"BPE","vocab":{"a":2000000000},"merges":[]}`), "ids go from")
	f(strings.Replace(fmt.Sprintf(tinyModel, ""), `"Fuse"`, `"CTC"`, 1), "decoder", "CTC")
	f(strings.Replace(fmt.Sprintf(tinyModel, ""), `"Fuse"`, `"ByteLevel"`, 1), "ByteLevel")
	f(`{"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`, "decoder")
	f(`{`)
}

func TestMissingFiles(t *testing.T) {
	_, err := Load(fstest.MapFS{})
	require.ErrorContains(t, err, "tokenizer.json")
	_, err = Load(fstest.MapFS{"vocab.json": {Data: []byte(`{"a":0}`)}})
	require.ErrorContains(t, err, "tokenizer_class")
	_, err = Load(fstest.MapFS{"vocab.json": {Data: []byte(`{"a":0}`)}, "tokenizer_config.json": {Data: []byte(`{"tokenizer_class":"GPT2Tokenizer"}`)}})
	require.ErrorContains(t, err, "merges.txt")
	_, err = Load(fstest.MapFS{"tokenizer.model": {Data: []byte("hello")}})
	require.ErrorContains(t, err, "neither SentencePiece nor tiktoken")
	_, err = Load(fstest.MapFS{"tokenizer.model": {Data: []byte("YQ== 0\nYg== 1\n")}})
	require.ErrorContains(t, err, "Llama 3")
	_, err = Load(fstest.MapFS{"tokenizer.json": {Data: []byte("{}")}, "tokenizer_config.json": {Data: []byte("[")}})
	require.ErrorContains(t, err, "tokenizer_config.json")
}

// TestVocabFiles takes GPT-2's tokenizer.json apart into vocab.json and
// merges.txt: the same tokenizer.
func TestVocabFiles(t *testing.T) {
	var f struct {
		Model struct {
			Vocab  json.RawMessage
			Merges []string
		}
	}
	jsonData(t, "tokenizer-gpt2/tokenizer.json", &f)
	tok, err := Load(fstest.MapFS{
		"vocab.json":            {Data: f.Model.Vocab},
		"merges.txt":            {Data: []byte("#version: 0.2\n" + strings.Join(f.Model.Merges, "\n") + "\n")},
		"tokenizer_config.json": {Data: []byte(`{"tokenizer_class":"GPT2TokenizerFast"}`)},
	})
	require.NoError(t, err)
	texts, want := vectors(t, "gpt-2")
	for i, text := range texts {
		require.Equal(t, want[i], encode(t, tok, text, EncodeOptions{}))
	}
	eos, ok := tok.EOS()
	require.True(t, ok)
	require.EqualValues(t, 50256, eos)
	require.True(t, tok.IsSpecial(eos))
}

// TestConfig: tokenizer_config.json and its neighbours.
func TestConfig(t *testing.T) {
	added := `"added_tokens":[{"id":5,"content":"<s>","special":true},{"id":6,"content":"</s>","special":true}],`
	template := `"post_processor":{"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing",
		"single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[5]}}}]},`
	f := func(sections, config string, want ...terse.Token) {
		t.Helper()
		fsys := jsonFS(fmt.Sprintf(tinyModel, sections))
		fsys["tokenizer_config.json"] = &fstest.MapFile{Data: []byte(config)}
		tok, err := Load(fsys)
		require.NoError(t, err)
		require.Equal(t, want, encode(t, tok, "ab", EncodeOptions{AddSpecial: true}))
	}
	names := `"bos_token":"<s>","eos_token":{"content":"</s>"}`
	f(added, `{`+names+`}`, 2)
	f(added+template, `{`+names+`}`, 5, 2)
	f(added+template, `{`+names+`,"tokenizer_class":"PreTrainedTokenizerFast","add_bos_token":false}`, 5, 2)
	f(added+template, `{`+names+`,"tokenizer_class":"LlamaTokenizer","add_bos_token":false,"add_eos_token":true}`, 2, 6)
	f(added, `{`+names+`,"tokenizer_class":"LlamaTokenizerFast","add_bos_token":true}`, 5, 2)

	fsys := jsonFS(fmt.Sprintf(tinyModel, added))
	fsys["tokenizer_config.json"] = &fstest.MapFile{Data: []byte(`{"eos_token":"</s>","chat_template":[{"name":"x","template":"1"},{"name":"default","template":"2"}]}`)}
	fsys["generation_config.json"] = &fstest.MapFile{Data: []byte(`{"eos_token_id":5}`)}
	tok, err := Load(fsys)
	require.NoError(t, err)
	require.Equal(t, []terse.Token{6, 5}, tok.StopTokens())
	require.Equal(t, "2", tok.ChatTemplate())
	fsys["chat_template.jinja"] = &fstest.MapFile{Data: []byte("3")}
	tok, err = Load(fsys)
	require.NoError(t, err)
	require.Equal(t, "3", tok.ChatTemplate())
}

// TestGGUFErrors breaks a sound vocabulary one key at a time.
func TestGGUFErrors(t *testing.T) {
	sound := map[string]any{
		"tokenizer.ggml.model":        "llama",
		"tokenizer.ggml.tokens":       []any{"<unk>", "<s>", "a", "b", "ab", "▁"},
		"tokenizer.ggml.scores":       []float32{0, 0, -3, -3, -1, -2},
		"tokenizer.ggml.token_type":   []any{int32(2), int32(3), int32(1), int32(1), int32(1), int32(1)},
		"tokenizer.ggml.bos_token_id": uint32(1),
	}
	tok, err := FromGGUF(sound)
	require.NoError(t, err)
	require.Equal(t, "<s>| |ab", tokens(tok, encode(t, tok, "ab", EncodeOptions{AddSpecial: true})))
	f := func(key string, value any, want string) {
		t.Helper()
		m := maps.Clone(sound)
		if m[key] = value; value == nil {
			delete(m, key)
		}
		_, err := FromGGUF(m)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "GGUF")
	}
	f("tokenizer.ggml.model", "bert", "bert")
	f("tokenizer.ggml.model", nil, "tokenizer.ggml.model")
	f("tokenizer.ggml.tokens", nil, "missing")
	f("tokenizer.ggml.tokens", []any{"a", 5}, "tokens[1]")
	f("tokenizer.ggml.tokens", slices.Repeat([]string{"a"}, 6), "twice")
	f("tokenizer.ggml.scores", nil, "scores")
	f("tokenizer.ggml.scores", []float32{1}, "1 entries")
	f("tokenizer.ggml.scores", []any{"x", "x", "x", "x", "x", "x"}, "scores[0]")
	f("tokenizer.ggml.token_type", "x", "token_type")
	f("tokenizer.ggml.bos_token_id", uint32(6), "bos_token_id is 6")
	f("tokenizer.ggml.remove_extra_whitespaces", true, "remove_extra_whitespaces")
	sound["tokenizer.ggml.model"] = "gpt2"
	f("tokenizer.ggml.merges", []string{"a"}, "merge 0")
	f("tokenizer.ggml.merges", []string{"a b"}, "tokenizer.ggml.pre is missing")
	sound["tokenizer.ggml.merges"] = []string{"a b"}
	f("tokenizer.ggml.pre", "new-one", "new-one")
}

// TestGGUFPreNames builds every pre-tokenizer that is known by name.
func TestGGUFPreNames(t *testing.T) {
	for _, name := range []string{"gpt-2", "llama-bpe", "dbrx", "qwen2", "starcoder", "falcon", "deepseek-llm",
		"deepseek-coder", "deepseek-v3", "gpt-4o", "tekken"} {
		b := builder{vocab: map[string]int32{}, byteLevel: true}
		for i := range 256 {
			b.vocab[toAlphabet(rawByte(byte(i)))] = int32(i)
		}
		_, err := b.ggufPre(name)
		require.NoError(t, err, name)
		tok, err := b.build()
		require.NoError(t, err, name)
		const text = "It's 12345 naïve 中文かな;  \n\n\tEND ²x!"
		require.Len(t, encode(t, tok, text, EncodeOptions{}), len(text), name)
		require.Equal(t, text, tok.Decode(encode(t, tok, text, EncodeOptions{}), false), name)
	}
}

func TestSentencePieceErrors(t *testing.T) {
	file := data(t, "tokenizer-mistral/tokenizer.model.v1")
	for _, n := range []int{1, 2, 100, 1000, len(file) / 2} {
		_, err := Load(fstest.MapFS{"tokenizer.model": {Data: file[:n]}})
		require.Error(t, err, n)
	}
	_, err := Load(fstest.MapFS{"tokenizer.model": {Data: []byte{spTagPiece, 3, spPieceText, 1, 'a'}}})
	require.ErrorContains(t, err, "only BPE")
}

// TestGrowthIsBounded: a normalizer cannot make a small text huge.
func TestGrowthIsBounded(t *testing.T) {
	step := `{"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaaaaaaaaaa"}`
	tok := loadJSON(t, fmt.Sprintf(tinyModel, `"normalizer":{"type":"Sequence","normalizers":[`+
		strings.Repeat(step+",", 20)+step+`]},`))
	_, err := tok.Encode("aaaaaaaa", EncodeOptions{})
	require.ErrorContains(t, err, "normalizer")
}

// TestTiktoken reads a file like Llama 3's: 128,000 ranks and nothing else.
func TestTiktoken(t *testing.T) {
	var b strings.Builder
	for rank := range llama3Ranks {
		raw := []byte{byte(rank)}
		if n := rank - 256; n >= 1<<16 { // three bytes: 0, then any two
			raw = []byte{0, byte(n >> 8), byte(n)}
		} else if n >= 0 {
			raw = []byte{byte(n >> 8), byte(n)}
		}
		fmt.Fprintf(&b, "%s %d\n", base64.StdEncoding.EncodeToString(raw), rank)
	}
	tok, err := Load(fstest.MapFS{"tokenizer.model": {Data: []byte(b.String())}})
	require.NoError(t, err)
	require.Equal(t, 128256, tok.Size())
	require.Equal(t, []terse.Token{128001, 128009}, tok.StopTokens())
	pair := func(s string) terse.Token { return 256 + terse.Token(s[0])<<8 + terse.Token(s[1]) }
	// "ab" has the lowest rank of the pairs of "cabd"; "cd" is a token whole.
	require.Equal(t, []terse.Token{128000, 'c', pair("ab"), 'd', pair(" c")},
		encode(t, tok, "cabd c", EncodeOptions{AddSpecial: true}))
	require.Equal(t, []terse.Token{128006, pair("cd"), 128007, 128255},
		encode(t, tok, "<|start_header_id|>cd<|end_header_id|><|reserved_special_token_246|>", EncodeOptions{ParseSpecial: true}))
	f := func(text, want string) {
		t.Helper()
		_, err := Load(fstest.MapFS{"tokenizer.model": {Data: []byte(text)}})
		require.ErrorContains(t, err, want)
	}
	f("YQ== 0\nYg== 2\n", "line 2 has rank")
	f("YQ== 0\nYQ== 1\n", "line 2 repeats")
	f("YQ== 0\nYg==\n", "line 2 has rank")
}

// TestNormalizers checks each component of tokenizer.json.
func TestNormalizers(t *testing.T) {
	f := func(json, text, want string) {
		t.Helper()
		n, err := parseNormalizer([]byte(json), 0)
		require.NoError(t, err)
		got, err := n.apply(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	f(`null`, "E\u0301", "E\u0301")
	f(`{"type":"NFC"}`, "E\u0301", "\u00c9")
	f(`{"type":"NFD"}`, "\u00c9", "E\u0301")
	f(`{"type":"NFKC"}`, "ﬁ①", "fi1")
	f(`{"type":"NFKD"}`, "\u00c9ﬁ", "E\u0301fi")
	f(`{"type":"Lowercase"}`, "ÀB", "àb")
	f(`{"type":"Prepend","prepend":"_"}`, "a", "_a")
	f(`{"type":"Prepend","prepend":"_"}`, "", "")
	f(`{"type":"Replace","pattern":{"String":"ab"},"content":"c"}`, "aabb", "acb")
	f(`{"type":"Strip","strip_left":true,"strip_right":false}`, " a ", "a ")
	f(`{"type":"Strip","strip_left":false,"strip_right":true}`, " a ", " a")
	f(`{"type":"Sequence","normalizers":[{"type":"Lowercase"},{"type":"Prepend","prepend":"X"}]}`, "A", "Xa")
}

// TestDecoders checks what each decoder makes of the pieces of a text.
func TestDecoders(t *testing.T) {
	f := func(decoder, want string) {
		t.Helper()
		tok := loadJSON(t, strings.Replace(fmt.Sprintf(tinyModel, ""), `{"type":"Fuse"}`, decoder, 1))
		require.Equal(t, want, tok.Decode([]terse.Token{4, 1, 4, 3, 0}, false))
	}
	f(`{"type":"Fuse"}`, "▁ab▁a▁a")
	f(`{"type":"Metaspace","replacement":"▁"}`, "ab a a")
	f(`{"type":"Metaspace","replacement":"▁","prepend_scheme":"never"}`, " ab a a")
	f(`{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]}`, " ab a a")
	f(`{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}`, "ab a a")
}

// TestGGUFNumbers: a reader may hand over numbers of any type.
func TestGGUFNumbers(t *testing.T) {
	f := func(v any) {
		t.Helper()
		got, err := numbers[int32](ggufMeta{"k": v}, "k", 2)
		require.NoError(t, err)
		require.Equal(t, []int32{1, 2}, got)
		scores, err := numbers[float32](ggufMeta{"k": v}, "k", 2)
		require.NoError(t, err)
		require.Equal(t, []float32{1, 2}, scores)
	}
	f([]int32{1, 2})
	f([]uint32{1, 2})
	f([]float32{1, 2})
	f([]float64{1, 2})
	f([]any{uint8(1), int8(2)})
	f([]any{uint16(1), int16(2)})
	f([]any{uint64(1), int64(2)})
	f([]any{int(1), float64(2)})
	f([]any{uint32(1), float32(2)})
}
