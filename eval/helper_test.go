package eval

import (
	"runtime"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/internal/defaultmodel"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/tokenizer"
)

// defaultTokenizer is the built-in model's.
func defaultTokenizer(t *testing.T) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Load(defaultmodel.FS())
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// defaultSubject is the built-in model with its calibration.
func defaultSubject(t *testing.T) Subject {
	t.Helper()
	return stressedSubject(t, "")
}

// stressedSubject is it with planted outliers; the calibration is then not its
// own.
func stressedSubject(t *testing.T, stress string) Subject {
	t.Helper()
	w, cal := modeltest.BuiltIn(t)
	if stress != "" {
		if err := Stress(w, stress); err != nil {
			t.Fatal(err)
		}
	}
	ops := cpu.Best(runtime.GOMAXPROCS(0))
	t.Cleanup(ops.Close)
	return Subject{Model: w.Bind(ops), Calibration: cal}
}

// encoder encodes plain text.
func encoder(tok *tokenizer.Tokenizer) func(string) ([]terse.Token, error) {
	return func(text string) ([]terse.Token, error) { return tok.Encode(text, tokenizer.EncodeOptions{}) }
}

// sampleWindows are n windows of a built-in text.
func sampleWindows(t *testing.T, tok *tokenizer.Tokenizer, text string, size, n int) [][]terse.Token {
	t.Helper()
	docs, err := Text(text)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := tok.ID("<|endoftext|>")
	windows, err := Windows(docs, encoder(tok), end, size, n)
	if err != nil {
		t.Fatal(err)
	}
	return windows
}
