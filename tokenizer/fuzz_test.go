package tokenizer

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/terse-llm/terse"
)

// FuzzLoad reads hostile files. Whatever loads must encode and decode without
// panicking, and stay inside its vocabulary.
func FuzzLoad(f *testing.F) {
	names := []string{"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json"}
	for _, section := range []string{
		"", `"normalizer":{"type":"Prepend","prepend":"▁"},`,
		`"pre_tokenizer":{"type":"Metaspace","replacement":"▁"},`,
		`"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]},`,
		`"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\s+|[a-c]+"},"behavior":"MergedWithNext"},`,
		`"added_tokens":[{"id":7,"content":"<x>","special":true,"lstrip":true,"rstrip":true,"single_word":true}],`,
	} {
		f.Add(0, []byte(fmt.Sprintf(tinyModel, section)))
	}
	f.Add(1, []byte{spTagPiece, 3, spPieceText, 1, 'a', spTagTrainer, 2, spTrainerType, 2, spTagNormalizer, 2, spNormTrim, 0})
	f.Add(1, []byte("YQ== 0\n"))
	f.Add(2, []byte(`{"bos_token":{"content":"a"},"tokenizer_class":"LlamaTokenizer","add_bos_token":true,"chat_template":[]}`))
	f.Add(3, []byte(`{"a":0,"b":1,"ab":2}`))
	f.Fuzz(func(t *testing.T, kind int, file []byte) {
		if len(file) > 1<<16 {
			return
		}
		fsys := jsonFS(fmt.Sprintf(tinyModel, ""))
		fsys["merges.txt"] = &fstest.MapFile{Data: []byte("a b\n")}
		if name := names[uint(kind)%uint(len(names))]; name != "tokenizer_config.json" {
			delete(fsys, "tokenizer.json")
			fsys["tokenizer_config.json"] = &fstest.MapFile{Data: []byte(`{"tokenizer_class":"Qwen2Tokenizer"}`)}
			fsys[name] = &fstest.MapFile{Data: file}
		} else {
			fsys[name] = &fstest.MapFile{Data: file}
		}
		tok, err := Load(fsys)
		if err != nil {
			require.Nil(t, tok)
			return
		}
		for _, text := range []string{"", "a ab <x> b\n", strings.Repeat("ab ", 50)} {
			ids, err := tok.Encode(text, EncodeOptions{AddSpecial: true, ParseSpecial: true})
			if err != nil {
				continue
			}
			for _, id := range ids {
				require.True(t, tok.vocab.has(id), id)
			}
			require.True(t, utf8.ValidString(tok.Decode(ids, false)))
		}
	})
}

// FuzzEncodeDecode: any text comes back from its ids.
func FuzzEncodeDecode(f *testing.F) {
	for _, s := range []string{"Hello, world!", " a  b\n\n", "naïve 🙂🦙", "<|end|><|user|>", "\u0301\u0301", "<0x41>▁"} {
		f.Add(s)
	}
	toks := []*Tokenizer{loadDefault(f), loadGPT2(f), loadGGUF(f, "phi-3"), loadGGUF(f, "deepseek-coder"), loadMistral(f, "tokenizer.model.v1")}
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range toks {
			ids, err := tok.Encode(text, EncodeOptions{})
			if !utf8.ValidString(text) {
				require.Equal(t, terse.CodeInvalid, terse.CodeOf(err))
				continue
			}
			require.NoError(t, err)
			want := text
			if !tok.model.byteLevel {
				// SentencePiece cannot tell its space mark from a space.
				want = strings.ReplaceAll(text, metaspace, " ")
			}
			// A token before which white space is swallowed is not reversible.
			if !strings.Contains(text, "</s>") {
				require.Equal(t, want, tok.Decode(ids, false))
			}
		}
	})
}

// FuzzStream: the pieces of any ids are valid UTF-8 and make up the text.
func FuzzStream(f *testing.F) {
	f.Add([]byte{1, 2, 3, 200, 0, 255, 7, 7}, true)
	f.Add([]byte{0xf0, 0, 0x9f, 0}, false)
	toks := []*Tokenizer{loadDefault(f), loadGGUF(f, "phi-3")}
	f.Fuzz(func(t *testing.T, raw []byte, skip bool) {
		for _, tok := range toks {
			var ids []terse.Token
			for i := 0; i+1 < len(raw); i += 2 {
				ids = append(ids, terse.Token(raw[i])|terse.Token(raw[i+1]&0x7f)<<8)
			}
			s := tok.NewStream(skip)
			var b strings.Builder
			var all []byte
			for _, id := range ids {
				part := s.Push(id)
				require.True(t, utf8.ValidString(part))
				b.WriteString(part)
				if !skip || !tok.IsSpecial(id) {
					all = append(all, tok.TokenBytes(id)...)
				}
			}
			b.WriteString(s.Flush())
			require.Equal(t, tok.Decode(ids, skip), b.String())
			want := string(all)
			for range tok.stripStart {
				want = strings.TrimPrefix(want, " ")
			}
			require.Equal(t, lossy(want), b.String())
		}
	})
}
