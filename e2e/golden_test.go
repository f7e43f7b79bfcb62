package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/internal/defaultmodel"
	"github.com/terse-llm/terse/tokenizer"
)

// The served text is what transformers generates from the same files. (Package
// model compares logits; here it is the whole way from tokens to JSON.)
func TestServesWhatTransformersGenerates(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "internal", "defaultmodel", "testdata", "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Golden []struct {
			Prompt string        `json:"prompt"`
			IDs    []terse.Token `json:"ids"`
			Greedy []terse.Token `json:"greedy"`
		} `json:"golden"`
	}
	if err := json.Unmarshal(b, &file); err != nil || len(file.Golden) == 0 {
		t.Fatalf("%d transcripts, %v", len(file.Golden), err)
	}
	tok, err := tokenizer.Load(defaultmodel.FS())
	if err != nil {
		t.Fatal(err)
	}
	s := loopback().serve(t, "--kv", "f16")
	const n = 24 // further on, two tokens may be equally likely
	for _, g := range file.Golden {
		want := tok.Decode(g.Greedy[len(g.IDs):len(g.IDs)+n], false)
		if got := s.ask(greedy(g.IDs, n)).Choices[0].Text; got != want {
			t.Errorf("%q goes on with\n%q, want\n%q", g.Prompt, got, want)
		}
	}
}
