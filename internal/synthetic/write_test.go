package synthetic

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse/tensor"
)

func tiny(t *testing.T) Shape {
	t.Helper()
	s, err := ShapeOf("tiny")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWriteRepeats(t *testing.T) {
	s := tiny(t)
	for _, dt := range Types() {
		var a, b, other bytes.Buffer
		for w, seed := range map[*bytes.Buffer]uint64{&a: 1, &b: 1, &other: 2} {
			if err := Write(w, s, dt, seed); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Errorf("%v: one seed wrote two models", dt)
		}
		if bytes.Equal(a.Bytes(), other.Bytes()) {
			t.Errorf("%v: two seeds wrote one model", dt)
		}
		if least := dt.RowBytes(s.Parameters() / 256 * 256); a.Len() < least {
			t.Errorf("%v: %d bytes for %d of weights", dt, a.Len(), least)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := tiny(t)
	s.Inner = 96
	if err := Write(&bytes.Buffer{}, s, tensor.Q4_K, 1); err == nil || !strings.Contains(err.Error(), "blocks of 256") {
		t.Errorf("rows of 96 in blocks of 256: %v", err)
	}
	for _, words := range []Words{Scored, Merged} {
		s := tiny(t)
		s.Vocab, s.Words = 300, words
		if err := Write(&bytes.Buffer{}, s, tensor.F32, 1); err == nil {
			t.Errorf("vocabulary kind %d of 300 tokens was written", words)
		}
	}
	if err := Write(full{}, tiny(t), tensor.F32, 1); !errors.Is(err, errFull) {
		t.Errorf("a full disk gives %v", err)
	}
	if _, err := ShapeOf("llama-9"); err == nil || !strings.Contains(err.Error(), "llama-3.2-1b") {
		t.Errorf("unknown shape: %v", err)
	}
	if _, err := TypeOf("q3"); err == nil || !strings.Contains(err.Error(), "q8_0") {
		t.Errorf("unknown type: %v", err)
	}
}

var errFull = errors.New("disk full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// Every token is there once, and a merge makes each word of two tokens before it.
func TestVocabularies(t *testing.T) {
	for _, s := range Shapes() {
		meta, err := s.vocabulary()
		if err != nil {
			t.Fatal(err)
		}
		tokens := meta["tokenizer.ggml.tokens"].([]string)
		at := map[string]int{}
		for i, token := range tokens {
			if _, twice := at[token]; twice {
				t.Fatalf("%s: token %q is there twice", s.Name, token)
			}
			at[token] = i
		}
		if len(tokens) != s.Vocab || len(meta["tokenizer.ggml.token_type"].([]int32)) != s.Vocab {
			t.Errorf("%s: %d tokens, want %d", s.Name, len(tokens), s.Vocab)
		}
		merges, _ := meta["tokenizer.ggml.merges"].([]string)
		for i, m := range merges {
			a, b, _ := strings.Cut(m, " ")
			whole, ok := at[a+b]
			before := max(at[a], at[b])
			if _, parts := at[a]; !ok || !parts || before >= whole || whole != 256+i {
				t.Fatalf("%s: merge %d %q makes token %d of tokens up to %d", s.Name, i, m, whole, before)
			}
		}
	}
	if a := alphabet(); len(a) != 256 || !slices.Contains(a, "Ġ") || !slices.Contains(a, "Ċ") {
		t.Errorf("alphabet of %d", len(a))
	}
}
