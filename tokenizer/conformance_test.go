package tokenizer

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/terse-llm/terse"
)

// vectors are llama.cpp's test strings and a vocabulary's ids for them.
func vectors(t testing.TB, name string) (texts []string, ids [][]terse.Token) {
	t.Helper()
	texts = strings.Split(string(data(t, "tokenizers-llama.cpp/ggml-vocab-gpt-2.gguf.inp")), "\n__ggml_vocab_test__\n")
	lines := strings.Split(string(data(t, "tokenizers-llama.cpp/ggml-vocab-"+name+".gguf.out")), "\n")
	require.Len(t, texts, 47)
	require.Len(t, lines, len(texts))
	for _, line := range lines {
		list := []terse.Token{}
		for _, f := range strings.Fields(line) {
			id, err := strconv.Atoi(f)
			require.NoError(t, err)
			list = append(list, terse.Token(id))
		}
		ids = append(ids, list)
	}
	return texts, ids
}

// TestLlamaCppVectors compares with ids that llama.cpp checked against
// Hugging Face.
func TestLlamaCppVectors(t *testing.T) {
	f := func(name string, load func(testing.TB) *Tokenizer) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok := load(t)
			texts, want := vectors(t, name)
			for i, text := range texts {
				require.Equal(t, want[i], encode(t, tok, text, EncodeOptions{}), "text %d: %q", i, text)
				require.Equal(t, lossy(text), tok.Decode(want[i], false), "text %d", i)
			}
		})
	}
	gguf := func(name string) func(testing.TB) *Tokenizer {
		return func(t testing.TB) *Tokenizer { return loadGGUF(t, name) }
	}
	for _, name := range []string{"llama-spm", "phi-3", "gpt-2", "falcon", "deepseek-coder", "deepseek-llm", "starcoder"} {
		f(name, gguf(name))
	}
	f("llama-bpe", loadLlama3)
	f("qwen2", loadQwen)
	f("gpt-2", loadGPT2)
	f("phi-3", loadPhi3)
}

type hfCase struct {
	Input   string
	Encoded struct {
		IDs []terse.Token `json:"input_ids"`
	}
	WithSpecial    string `json:"decoded_with_special"`
	WithoutSpecial string `json:"decoded_without_special"`
}

// cleanUp is the clean_up_tokenization_spaces of transformers, which made some
// of the expected texts. This package does not apply it: it changes text.
var cleanUp = strings.NewReplacer(" .", ".", " ?", "?", " !", "!", " ,", ",", " ' ", "'",
	" n't", "n't", " 'm", "'m", " 's", "'s", " 've", "'ve", " 're", "'re")

// TestHuggingFaceVectors compares ids, special tokens included, and both
// decodings with transformers.
func TestHuggingFaceVectors(t *testing.T) {
	var all map[string][]hfCase
	jsonData(t, "tokenizer-hf-expected/tokenizer_tests.json", &all)
	f := func(name string, load func(testing.TB) *Tokenizer) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok, cases := load(t), all[name]
			require.GreaterOrEqual(t, len(cases), 18)
			same := func(want, got string) {
				t.Helper()
				if want != got {
					require.Equal(t, want, cleanUp.Replace(got))
				}
			}
			for _, c := range cases {
				require.Equal(t, c.Encoded.IDs, encode(t, tok, c.Input, EncodeOptions{AddSpecial: true}), "%q", c.Input)
				same(c.WithSpecial, tok.Decode(c.Encoded.IDs, false))
				same(c.WithoutSpecial, tok.Decode(c.Encoded.IDs, true))
			}
		})
	}
	f("distilgpt2", loadGPT2)
	f("coreml-projects/Llama-2-7b-chat-coreml", func(t testing.TB) *Tokenizer { return loadGGUF(t, "llama-spm") })
	f("pcuenq/Llama-3.2-1B-Instruct-tokenizer", loadLlama3)
	f("tiiuae/falcon-7b", func(t testing.TB) *Tokenizer { return loadGGUF(t, "falcon") })
}

// TestLongText compares a page of French.
func TestLongText(t *testing.T) {
	f := func(name string, load func(testing.TB) *Tokenizer) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c struct {
				Text    string
				IDs     []terse.Token `json:"token_ids"`
				Decoded string        `json:"decoded_text"`
			}
			jsonData(t, "tokenizer-hf-expected/"+name+".json", &c)
			tok := load(t)
			require.Greater(t, len(c.IDs), 100)
			require.Equal(t, c.IDs, encode(t, tok, c.Text, EncodeOptions{AddSpecial: true}))
			require.Equal(t, c.Decoded, tok.Decode(c.IDs, false))
		})
	}
	f("gpt2_encoded_tokens", loadGPT2)
	f("falcon_encoded", func(t testing.TB) *Tokenizer { return loadGGUF(t, "falcon") })
	f("llama_encoded", func(t testing.TB) *Tokenizer { return loadGGUF(t, "llama-spm") })
	f("llama_3.2_encoded", loadLlama3)
}

// TestSameVocabulary loads the same model from two formats: every id means the
// same, and texts encode alike.
func TestSameVocabulary(t *testing.T) {
	f := func(name string, load func(testing.TB) *Tokenizer, skip func(id terse.Token) bool) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := load(t), loadGGUF(t, name)
			for id := range terse.Token(a.Size()) {
				if !skip(id) {
					require.Equal(t, a.TokenBytes(id), b.TokenBytes(id), "id %d", id)
					require.Equal(t, a.IsSpecial(id), b.IsSpecial(id), "id %d", id)
				}
			}
			texts, _ := vectors(t, name)
			for _, text := range append(texts, "<|user|>\n Hi<|end|>\n<|assistant|>", "a</s> b", "<s><|endoftext|>") {
				for _, parse := range []bool{false, true} {
					o := EncodeOptions{ParseSpecial: parse}
					require.Equal(t, encode(t, a, text, o), encode(t, b, text, o), "%q", text)
				}
			}
		})
	}
	f("gpt-2", loadGPT2, func(terse.Token) bool { return false })
	// The GGUF file pads Phi-3's vocabulary; tokenizer.json ends before.
	f("phi-3", loadPhi3, func(id terse.Token) bool { return id > 32010 })
}

// TestDefaultModel compares with ids that the model was trained and tested with.
func TestDefaultModel(t *testing.T) {
	tok := loadDefault(t)
	var prompts []struct {
		Prompt string
		IDs    []terse.Token
	}
	jsonData(t, "default-model/prompts.json", &prompts)
	require.Len(t, prompts, 8)
	for _, p := range prompts {
		require.Equal(t, p.IDs, encode(t, tok, p.Prompt, EncodeOptions{AddSpecial: true, ParseSpecial: true}))
		require.Equal(t, p.Prompt, tok.Decode(p.IDs, false))
	}
	eos, ok := tok.EOS()
	require.True(t, ok)
	require.EqualValues(t, 3, eos)
	require.Equal(t, []terse.Token{3, 0}, tok.StopTokens())
	require.Equal(t, 8192, tok.Size())
	require.Contains(t, tok.ChatTemplate(), "add_generation_prompt")
}
