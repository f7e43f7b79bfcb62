package chat

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	terse "github.com/terse-llm/terse"
)

// goldenCase is a conversation as testdata/golden.py writes it.
type goldenCase struct {
	Messages            []json.RawMessage
	Tools               json.RawMessage
	AddGenerationPrompt *bool `json:"add_generation_prompt"`
	Extra               map[string]any
}

func (c goldenCase) input() Input {
	in := Input{AddGenerationPrompt: c.AddGenerationPrompt == nil || *c.AddGenerationPrompt, Extra: c.Extra}
	if c.Tools != nil {
		in.Tools = c.Tools
	}
	for _, m := range c.Messages {
		in.Messages = append(in.Messages, Message{Fields: m})
	}
	return in
}

type golden struct {
	Cases   map[string]goldenCase
	Results []struct{ Template, Case, Want, Fails string }
}

// TestGolden compares with what Jinja2 made of the same templates.
func TestGolden(t *testing.T) {
	folder, file := "testdata/templates", "testdata/golden.json"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Results) < 50 {
		t.Fatalf("only %d results in %s", len(g.Results), file)
	}
	o := Options{BOS: "<s>", EOS: "</s>", Now: func() time.Time { return time.Date(2024, 7, 26, 9, 5, 3, 0, time.UTC) }}
	for _, r := range g.Results {
		t.Run(r.Template+"/"+r.Case, func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join(folder, r.Template))
			if err != nil {
				t.Fatal(err)
			}
			tmpl, err := Parse(string(source), o)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tmpl.Render(g.Cases[r.Case].input())
			checkGolden(t, got, err, r.Want, r.Fails)
		})
	}
}

func checkGolden(t *testing.T, got string, err error, want, fails string) {
	t.Helper()
	message, raised := strings.CutPrefix(fails, "TemplateError: ")
	var refusal *Refusal
	switch {
	case raised:
		if !errors.As(err, &refusal) || refusal.Message != message {
			t.Errorf("error is %v, want the refusal %q", err, message)
		}
	case fails != "":
		if terse.CodeOf(err) != terse.CodeInvalid {
			t.Errorf("rendered %q, error %v; Jinja2 fails with %s", got, err, fails)
		}
	case err != nil:
		t.Errorf("cannot render: %v", err)
	case got != want:
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
