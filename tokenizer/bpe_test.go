package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/terse-llm/terse"
)

// obviousMerge is the definition: join the best pair, leftmost first, until
// none is left.
func obviousMerge(m *bpe, text string) []symbol {
	g := &merger{}
	g.begin(m, text)
	syms := g.syms
	for {
		at, best := -1, merged{rank: noRank}
		for i := range len(syms) - 1 {
			if out, ok := m.pair(text, &syms[i], &syms[i+1]); ok && out.rank < best.rank {
				at, best = i, out
			}
		}
		if at < 0 {
			return syms
		}
		syms[at].end, syms[at].id = syms[at+1].end, best.id
		syms = append(syms[:at+1], syms[at+2:]...)
	}
}

// TestMergesAgree compares both merge loops with the definition, on models that
// merge by pairs and by text.
func TestMergesAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	texts := []string{"a", "aaaaaaaaaaaaaaa", strings.Repeat("ab", 50), strings.Repeat("a", 101), "!!!!!!", "<0x41>"}
	for range 150 {
		texts = append(texts, alphabetSoup(r, 1+r.IntN(90)))
	}
	for _, m := range []*bpe{loadGPT2(t).model, loadPhi3(t).model, loadGGUF(t, "phi-3").model} {
		for _, text := range texts {
			want, err := m.spell(nil, text, obviousMerge(m, text))
			require.NoError(t, err)
			for _, merge := range []func(*merger){(*merger).mergeShort, (*merger).mergeLong} {
				g := &merger{}
				g.begin(m, text)
				merge(g)
				got, err := m.spell(nil, text, g.syms)
				require.NoError(t, err)
				require.Equal(t, want, got, "%q", text)
			}
		}
	}
}

// TestTieOrder: equal ranks join from the left.
func TestTieOrder(t *testing.T) {
	tok := loadGPT2(t)
	id, ok := tok.ID("!!!!")
	require.True(t, ok)
	two, ok := tok.ID("!!")
	require.True(t, ok)
	require.Equal(t, []terse.Token{id, two}, encode(t, tok, "!!!!!!", EncodeOptions{}))
}

// TestHostileText encodes what is worst for each part. A quadratic step would
// not end within the test's time limit.
func TestHostileText(t *testing.T) {
	f := func(tok *Tokenizer, unit string, size int) {
		t.Helper()
		text := strings.Repeat(unit, size/len(unit)) + "x"
		ids := encode(t, tok, text, EncodeOptions{ParseSpecial: true})
		if len(tok.norm) == 0 || tok.stripStart > 0 {
			require.Equal(t, text, tok.Decode(ids, false))
		}
	}
	for _, tok := range []*Tokenizer{loadGPT2(t), loadPhi3(t), loadGGUF(t, "phi-3"), loadGGUF(t, "deepseek-llm"), loadQwen(t), loadGGUF(t, "falcon")} {
		for _, unit := range []string{"\n", "<", "\u0301", "中", "1", " \n", "<|en", "🙂"} {
			f(tok, unit, 1<<15)
		}
		f(tok, "a", 1<<16)
		f(tok, " ", 1<<16)
	}
	if !testing.Short() {
		f(loadPhi3(t), "a", 1<<20)
		f(loadQwen(t), " ", 1<<20)
	}
}

// TestCache: what is remembered does not change the answer, and a small change
// of the text is another text.
func TestCache(t *testing.T) {
	m := loadGPT2(t).model
	fresh := &bpe{ids: m.ids, byteLevel: true, pairs: m.pairs, bytes: m.bytes, unk: -1, cache: newPieceCache()}
	fresh.scratch.New = func() any { return &merger{} }
	for _, text := range []string{" tokenizer", " tokenizers", " tokenizer", strings.Repeat("x", cacheText+1)} {
		first, err := fresh.encode(nil, text)
		require.NoError(t, err)
		again, err := fresh.encode([]terse.Token{7}, text)
		require.NoError(t, err)
		require.Equal(t, append([]terse.Token{7}, first...), again)
		_, cached := fresh.cache.get(text)
		require.Equal(t, len(text) <= cacheText, cached)
	}
}

func BenchmarkEncode(b *testing.B) {
	english := strings.Repeat("It was a bright cold day in April, and the clocks were striking 13. He didn't look back.\n", 500)
	french := strings.Repeat("Située au bord de l'estuaire, à proximité du département voisin, la commune s'étend. ", 500)
	for _, v := range []struct {
		name string
		load func(testing.TB) *Tokenizer
	}{
		{"gpt2", loadGPT2}, {"qwen2", loadQwen}, {"phi3", loadPhi3}, {"llama3", loadLlama3},
		{"deepseek-llm", func(t testing.TB) *Tokenizer { return loadGGUF(t, "deepseek-llm") }},
		{"falcon", func(t testing.TB) *Tokenizer { return loadGGUF(t, "falcon") }},
	} {
		for name, text := range map[string]string{"english": english, "french": french, "soup": alphabetSoup(rand.New(rand.NewPCG(5, 6)), 20000)} {
			b.Run("vocab="+v.name+"/text="+name, func(b *testing.B) {
				tok := v.load(b)
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := tok.Encode(text, EncodeOptions{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
