package eval

import (
	"math"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
)

func TestScores(t *testing.T) {
	f := func(metric, got, want string, right float64) {
		t.Helper()
		if s := score(metric, got, []string{"nothing of the kind", want}); math.Abs(s-right) > 1e-12 {
			t.Errorf("%s of %q against %q is %g, want %g", metric, got, want, s, right)
		}
	}
	f("accuracy", "Positive.", "positive", 1)
	f("accuracy", "positive, because it is good", "positive", 1)
	f("accuracy", "It is positive", "positive", 0)
	f("accuracy", "positively", "positive", 0)
	f("accuracy", "", "positive", 0)
	// Lin's example of recall 3/4; precision 3/4 with this candidate.
	f("rouge1", "police kill the gunman", "police killed the gunman", 0.75)
	f("rouge1", "the the the the", "the cat", 2.0/6)
	f("rouge1", "", "the cat", 0)
	f("edit", "kitten", "sitting", 1-3.0/7)
	f("edit", "same", " same\n", 1)
	f("edit", "", "abc", 0)
	f("edit", "ä", "a", 0)
}

func TestReadTaskFile(t *testing.T) {
	cases, err := ReadTaskFile(strings.NewReader("{\"prompt\":\"p\",\"answer\":\"a\",\"answers\":[\"b\"],\"metric\":\"edit\"}\n\n{\"prompt\":\"q\",\"answers\":[\"c\"],\"metric\":\"edit\",\"complete\":true}\n"))
	if err != nil || len(cases) != 2 || len(cases[0].Answers) != 2 || !cases[1].Complete {
		t.Fatalf("%+v, %v", cases, err)
	}
	f := func(file, want string) {
		t.Helper()
		if _, err := ReadTaskFile(strings.NewReader(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want an error with %q", file, err, want)
		}
	}
	good := `{"prompt":"p","answer":"a","metric":"edit"}`
	f("", "no cases")
	f(good+"\n"+`{"prompt":"p","answer":"a","metric":"rouge1"}`, "line 2")
	f(`{"prompt":"p","answer":"a","metric":"bleu"}`, "accuracy, rouge1, edit")
	f(`{"prompt":" ","answer":"a","metric":"edit"}`, "prompt is missing")
	f(`{"prompt":"p","metric":"edit"}`, "0 answers")
	f(`{"prompt":"p","answer":"a","metric":"edit","x":1}`, "unknown field")
	f(good+good, "more than one value")
	f(`{"prompt":"p","answer":"`+strings.Repeat("a", maxAnswerText+1)+`","metric":"edit"}`, "longer than")
	f(`{"prompt":"`+strings.Repeat("a", maxLine)+`"}`, "too long")
	f(strings.Repeat(good+"\n", maxFileCases+1), "more than 10000")
}

func FuzzReadTaskFile(f *testing.F) {
	f.Add([]byte(`{"prompt":"p","answer":"a","metric":"edit"}`))
	f.Add([]byte("{\"prompt\":\"p\",\"answers\":[\"a\",\"\"],\"metric\":\"rouge1\",\"complete\":true}\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cases, err := ReadTaskFile(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		for _, c := range cases {
			if len(c.Answers) == 0 || len(c.Prompt) == 0 {
				t.Fatalf("a case with nothing to ask or to score: %+v", c)
			}
			for _, got := range []string{"", c.Prompt[:min(len(c.Prompt), 500)]} {
				if s := score(c.Metric, got, c.Answers); !(s >= 0 && s <= 1) {
					t.Fatalf("%s scores %g", c.Metric, s)
				}
			}
		}
	})
}

func TestAgreementAdds(t *testing.T) {
	var a Agreement
	a.add([]terse.Token{1, 2, 3, 4}, []terse.Token{1, 2, 9, 4})
	a.add([]terse.Token{1, 2, 3, 4}, []terse.Token{1, 2, 3, 4})
	if a.Until[0] != 2 || a.Equal[0] != 0.75 || a.Until[1] != 4 || a.Equal[1] != 1 {
		t.Errorf("%+v", a)
	}
}

// f16 agrees with itself, a coded format begins alike, and files are answered.
func TestAgreeAndFile(t *testing.T) {
	if testing.Short() {
		t.Skip("decodes the built-in model")
	}
	s, tok := defaultSubject(t), defaultTokenizer(t)
	windows := sampleWindows(t, tok, "children", 320, 3)
	got, err := Agree(t.Context(), s, windows, []string{"f16", "hq4"}, 320, 8, func(float64) {})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Until[0] != 8 || got[0].Equal[0] != 1 {
		t.Errorf("f16 does not agree with itself: %+v", got[0])
	}
	if mean(got[1].Until) == 0 { // at one of the windows two tokens are nearly equally likely
		t.Errorf("hq4 always parts at once: %+v", got[1])
	}
	if _, err := Agree(t.Context(), s, windows, nil, 320, 1<<20, nil); err == nil {
		t.Error("a continuation beyond the context is let through")
	}

	cases := []FileCase{{Prompt: "Tell me a story about Lily.", Answers: []string{"story"}, Metric: "rouge1"}}
	r, err := RunFile(t.Context(), s, tok, "story", "hq3", cases, Part{}, func(float64) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Scores) != 1 || r.name() != "story rouge1" {
		t.Errorf("%+v", r)
	}
}
