package tokenizer

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/terse-llm/terse"
)

// tokens spells ids, for readable comparisons.
func tokens(tok *Tokenizer, ids []terse.Token) string {
	var out []string
	for _, id := range ids {
		out = append(out, tok.TokenText(id))
	}
	return strings.Join(out, "|")
}

// TestControlTokens: text becomes a control token only where it may.
func TestControlTokens(t *testing.T) {
	f := func(tok *Tokenizer, text string, opts EncodeOptions, want string) {
		t.Helper()
		require.Equal(t, want, tokens(tok, encode(t, tok, text, opts)))
	}
	parse := EncodeOptions{ParseSpecial: true}
	qwen, phi, def := loadQwen(t), loadPhi3(t), loadDefault(t)
	f(qwen, "a<|im_end|>b", parse, "a|<|im_end|>|b")
	f(qwen, "a<|im_end|>b", EncodeOptions{}, "a|<|||im|_end|||>|b")
	// Not special in the file, but spelled as a control token.
	f(qwen, "<|fim_prefix|>", parse, "<|fim_prefix|>")
	require.Greater(t, len(encode(t, qwen, "<|fim_prefix|>", EncodeOptions{})), 1)
	// Ordinary added tokens are vocabulary.
	f(qwen, "x<tool_call>y", EncodeOptions{}, "x|<tool_call>|y")
	// Phi-3's <|user|> swallows the white space behind it.
	f(phi, "<|user|> \nHi", parse, "<|user|>| Hi")
	f(def, "<|user|>Hi<|end|>", parse, "<|user|>|H|i|<|end|>")

	const text = "<|user|>no<|end|>way<|end|>"
	plain := strings.Index(text, "no<|end|>way")
	f(def, text, EncodeOptions{ParseSpecial: true, Plain: []Span{{plain, plain + len("no<|end|>way")}}},
		"<|user|>|no|<|||end|||>|way|<|end|>")
	f(def, text, EncodeOptions{ParseSpecial: true, Plain: []Span{{0, 3}, {len(text) - 1, len(text)}}},
		"<|||user|||>|no|<|end|>|way|<|||end|||>")
	f(def, "<|end|>", EncodeOptions{ParseSpecial: true, Plain: []Span{{0, 0}, {7, 7}}}, "<|end|>")
	_, err := def.Encode(text, EncodeOptions{Plain: []Span{{4, 9}, {2, 3}}})
	require.ErrorContains(t, err, "not sorted")

	id, _ := def.ID("<|end|>")
	require.True(t, def.IsControl(id) && def.IsSpecial(id))
	fim, _ := qwen.ID("<|fim_prefix|>")
	require.True(t, qwen.IsControl(fim) && !qwen.IsSpecial(fim))
	call, _ := qwen.ID("<tool_call>")
	require.False(t, qwen.IsControl(call))
}

// TestNoPlainTextMakesControl: whatever the vocabulary, the spelling of a
// control token is never that token without ParseSpecial.
func TestNoPlainTextMakesControl(t *testing.T) {
	for _, tok := range []*Tokenizer{loadGPT2(t), loadQwen(t), loadPhi3(t), loadDefault(t), loadGGUF(t, "phi-3"),
		loadGGUF(t, "falcon"), loadGGUF(t, "starcoder"), loadGGUF(t, "deepseek-llm"), loadMistral(t, "mistral_instruct_tokenizer_240323.model.v3")} {
		seen := 0
		for id := range terse.Token(tok.Size()) {
			if !tok.IsControl(id) {
				continue
			}
			seen++
			for _, got := range encode(t, tok, "a "+tok.TokenText(id)+" b", EncodeOptions{}) {
				require.False(t, tok.IsControl(got), "%s", tok.TokenText(got))
			}
		}
		require.Positive(t, seen)
	}
}

func TestAddedTokenFlags(t *testing.T) {
	add := func(content string, set func(*addedToken)) addedToken {
		a := addedToken{content: content, id: 1}
		set(&a)
		return a
	}
	f := func(a addedToken, text, want string) {
		t.Helper()
		set, err := newAddedSet([]addedToken{a, {content: "ab", id: 2}, {content: "abc", id: 3}}, nil)
		require.NoError(t, err)
		var got []string
		set.raw.split(text, func(*addedToken, int, int) bool { return true },
			func(s string, at int) { require.Equal(t, s, text[at:at+len(s)]); got = append(got, s) },
			func(a *addedToken) { got = append(got, "<"+a.content+">") })
		require.Equal(t, want, strings.Join(got, ","))
	}
	f(add("x", func(a *addedToken) {}), "1 x 2", "1 ,<x>, 2")
	f(add("x", func(a *addedToken) { a.lstrip = true }), "1 x 2", "1,<x>, 2")
	f(add("x", func(a *addedToken) { a.rstrip = true }), "1 x 2x\t\n", "1 ,<x>,2,<x>")
	f(add("x", func(a *addedToken) { a.singleWord = true }), "x1 x, 2x_", "x1 ,<x>,, 2x_")
	f(add("x", func(a *addedToken) { a.hidden = true }), "x", "x")
	f(add("x", func(a *addedToken) {}), "abcabxababc", "<abc>,<ab>,<x>,<ab>,<abc>")
	f(add("é", func(a *addedToken) {}), "caféé", "caf,<é>,<é>")
}

func TestInvalidInput(t *testing.T) {
	tok := loadDefault(t)
	f := func(text, want string) {
		t.Helper()
		_, err := tok.Encode(text, EncodeOptions{})
		require.ErrorContains(t, err, want)
		require.Equal(t, terse.CodeInvalid, terse.CodeOf(err))
	}
	f("caf\xe9", "byte 3")
	f("\xff", "byte 0")
	f("ok \xed\xa0\x80", "byte 3") // a surrogate
	f(strings.Repeat("a", MaxText+1), "limit")
	ids := encode(t, tok, "", EncodeOptions{})
	require.Empty(t, ids)
	require.Equal(t, "\ufffd", tok.Decode(encode(t, tok, "\ufffd", EncodeOptions{}), true))
}

// TestUnknownCharacters: a byte without a token and without an unknown token is
// an error, not a hole in the text.
func TestUnknownCharacters(t *testing.T) {
	tok := loadJSON(t, `{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},
		"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"}}`)
	require.Equal(t, []terse.Token{2, 0}, encode(t, tok, "aba", EncodeOptions{}))
	_, err := tok.Encode("abc", EncodeOptions{})
	require.ErrorContains(t, err, `"c"`)
	require.Equal(t, terse.CodeInvalid, terse.CodeOf(err))

	unk := `{"model":{"type":"BPE","vocab":{"<unk>":3,"a":0,"b":1,"ab":2},"merges":["a b"],"unk_token":"<unk>","fuse_unk":%},
		"decoder":{"type":"Fuse"}}`
	tok = loadJSON(t, strings.Replace(unk, "%", "false", 1))
	require.Equal(t, []terse.Token{3, 3, 2, 3}, encode(t, tok, "xyabz", EncodeOptions{}))
	tok = loadJSON(t, strings.Replace(unk, "%", "true", 1))
	require.Equal(t, []terse.Token{3, 2, 3}, encode(t, tok, "xyabz", EncodeOptions{}))
}

// TestStream pushes ids one by one: no piece is broken UTF-8, and all pieces
// make the text.
func TestStream(t *testing.T) {
	texts := []string{"", "🙂🙃 naïve 中文字", "e\u0301👩‍👩‍👧‍👦!", " leading", "  two", "\u00a0x", "𝔘𝔫𝔦"}
	for _, tok := range []*Tokenizer{loadGPT2(t), loadQwen(t), loadPhi3(t), loadGGUF(t, "phi-3"),
		loadMistral(t, "tokenizer.model.v1"), loadDefault(t)} {
		for _, text := range texts {
			ids := encode(t, tok, text, EncodeOptions{AddSpecial: true})
			want := text
			if len(tok.norm) == 1 { // Qwen's NFC
				want, _ = tok.norm.apply(text)
			}
			require.Equal(t, want, tok.Decode(ids, true))
			s := tok.NewStream(true)
			var got strings.Builder
			for _, id := range ids {
				part := s.Push(id)
				require.True(t, utf8.ValidString(part))
				require.NotContains(t, part, "\ufffd")
				got.WriteString(part)
			}
			require.Empty(t, s.Flush())
			require.Equal(t, want, got.String())
		}
	}
}

// TestStreamInvalid: what can never become UTF-8 turns into U+FFFD, once for
// each maximal invalid part.
func TestStreamInvalid(t *testing.T) {
	tok := loadGPT2(t)
	f := func(bytes, want string) {
		t.Helper()
		var ids []terse.Token
		for i := range len(bytes) {
			ids = append(ids, terse.Token(tok.model.bytes[bytes[i]]))
		}
		require.Equal(t, want, tok.Decode(ids, false), "%x", bytes)
		require.Equal(t, want, lossy(bytes), "%x", bytes)
	}
	f("\xe2\x82\xac", "€")
	f("\xe2\x82", "\ufffd")
	f("\xe2\x82a", "\ufffda")
	f("\xe2a\x82", "\ufffda\ufffd")
	f("\xff\xfe", "\ufffd\ufffd")
	f("\xf0\x9f\x99", "\ufffd")
	f("\xf0\x9f\xe2\x82\xac", "\ufffd€")
	f("\xed\xa0\x80", "\ufffd\ufffd\ufffd") // a surrogate: no prefix of it is valid
	f("\xc0\x80a", "\ufffd\ufffda")
	f("\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd")
	f("\xe2\xe2\xe2\x82\xac\x80", "\ufffd\ufffd€\ufffd")

	s := tok.NewStream(false)
	require.Empty(t, s.Push(terse.Token(tok.model.bytes[0xe2])))
	require.Equal(t, "\ufffdA", s.Push(encode(t, tok, "A", EncodeOptions{})[0]))
	require.Empty(t, s.Push(-1)+s.Push(1<<30)+s.Flush())
}

// TestContinuation: text after a prompt keeps the space between the words.
func TestContinuation(t *testing.T) {
	tok := loadPhi3(t)
	id, ok := tok.ID("▁Paris")
	require.True(t, ok)
	require.Equal(t, "Paris", tok.NewStream(true).Push(id))
	require.Equal(t, " Paris", tok.NewContinuation(true).Push(id))
	require.Equal(t, " Paris", string(tok.TokenBytes(id)))
}

func TestAccessors(t *testing.T) {
	tok := loadPhi3(t)
	bos, ok := tok.BOS()
	require.True(t, ok)
	require.EqualValues(t, 1, bos)
	eos, _ := tok.EOS()
	pad, _ := tok.Pad()
	unk, _ := tok.Unknown()
	require.EqualValues(t, []terse.Token{32000, 32000, 0}, []terse.Token{eos, pad, unk})
	id, ok := tok.ID("<0x41>")
	require.True(t, ok)
	require.Equal(t, []byte("A"), tok.TokenBytes(id))
	id, ok = tok.ID("<0xE2>")
	require.True(t, ok)
	require.Equal(t, "\ufffd", tok.TokenText(id))
	require.Equal(t, []byte{0xe2}, tok.TokenBytes(id))
	_, ok = tok.ID("no such token")
	require.False(t, ok)
	require.Nil(t, tok.TokenBytes(-1))
	require.Empty(t, tok.TokenText(terse.Token(tok.Size())))
	require.False(t, tok.IsSpecial(1<<30))
	_, ok = loadQwen(t).BOS()
	require.False(t, ok)
	// Byte fallback tokens are no spelling of text.
	require.Greater(t, len(encode(t, tok, "<0x41>", EncodeOptions{})), 1)
}

// TestMistral: the released files have no expected ids beside them, but these
// hold for any SentencePiece model.
func TestMistral(t *testing.T) {
	f := func(file string, size int) {
		t.Helper()
		tok := loadMistral(t, file)
		require.Equal(t, size, tok.Size())
		ids := encode(t, tok, "Hello world", EncodeOptions{AddSpecial: true})
		require.Equal(t, "<s>| Hello| world", tokens(tok, ids))
		texts, _ := vectors(t, "llama-spm")
		for _, text := range texts {
			require.Equal(t, text, tok.Decode(encode(t, tok, text, EncodeOptions{AddSpecial: true}), true))
		}
		// 🦙 is no token: its four bytes are.
		require.Equal(t, "\ufffd|\ufffd|\ufffd|\ufffd", tokens(tok, encode(t, tok, "🦙", EncodeOptions{})[1:]))
	}
	f("tokenizer.model.v1", 32000)
	f("mistral_instruct_tokenizer_240323.model.v3", 32768)
	v3 := loadMistral(t, "mistral_instruct_tokenizer_240323.model.v3")
	inst, ok := v3.ID("[INST]")
	require.True(t, ok)
	require.EqualValues(t, 3, inst)
	require.Equal(t, "[INST]| Hi|[/INST]", tokens(v3, encode(t, v3, "[INST]Hi[/INST]", EncodeOptions{ParseSpecial: true})))
	require.NotContains(t, encode(t, v3, "[INST]Hi", EncodeOptions{}), inst)
}

func TestErrorsAreTyped(t *testing.T) {
	_, err := loadDefault(t).Encode("\xff", EncodeOptions{})
	require.True(t, errors.Is(err, &terse.Error{Code: terse.CodeInvalid}))
}
