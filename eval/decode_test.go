package eval

import (
	"slices"
	"testing"
)

// Decoding token by token gives what chunks give, bit for bit, in all formats
// whose rule of exact and coded tokens is the same for prompts and answers.
func TestDecodeStyle(t *testing.T) {
	if testing.Short() {
		t.Skip("decodes the built-in model")
	}
	s := defaultSubject(t)
	windows := sampleWindows(t, defaultTokenizer(t), "children", 352, 2)
	formats := []string{"f16", "hq3", "hq2+", "int4", "kivi", "hack:v2", "hack"}
	run := func(style Style) []*Divergence {
		d, err := Compare(t.Context(), s, windows, formats, 256, style, func(float64) {})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	chunks, decoded := run(Prefill), run(Decode)
	for i, want := range chunks {
		got := decoded[i]
		if got.Tokens != want.Tokens || got.Tokens != len(windows)*(352-256-1) {
			t.Fatalf("%s: %d and %d positions", want.Format, got.Tokens, want.Tokens)
		}
		t.Logf("%s: KL %.6f decoded, %.6f in chunks", want.Format, got.KL, want.KL)
		for n := range want.positions {
			if got.positions[n] != want.positions[n] {
				t.Errorf("%s: position %d is %+v decoded, %+v in chunks", want.Format, n, got.positions[n], want.positions[n])
				break
			}
		}
	}
	if _, err := Compare(t.Context(), s, windows, formats, 0, Decode, nil); err == nil {
		t.Error("decoding without a prompt is let through")
	}
}

// Questions that share a text are answered as each would be alone, in every kind
// of format, and those after a long decoded text stand where they say.
func TestScenes(t *testing.T) {
	if testing.Short() {
		t.Skip("decodes the built-in model")
	}
	s, tok := defaultSubject(t), defaultTokenizer(t)
	a, err := newAuthor(tok)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range []string{"late", "recall"} {
		const length = 320
		var scenes [][]question
		for n := range 2 {
			questions, err := a.questions(task, length, n)
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range questions {
				if task == "late" && (len(q.prompt) > length/lateList+16 || len(q.later) < length/2) {
					t.Errorf("a list of %d tokens, and %d after it", len(q.prompt), len(q.later))
				}
			}
			scenes = append(scenes, questions[:2])
		}
		for _, format := range []string{"f16", "hq2,important=10", "hq3@top"} {
			together, err := answers(t.Context(), s, tok, format, a.chat, scenes)
			if err != nil {
				t.Fatal(err)
			}
			for n, q := range slices.Concat(scenes...) {
				alone, err := answers(t.Context(), s, tok, format, a.chat, [][]question{{q}})
				if err != nil {
					t.Fatal(err)
				}
				if alone[0] != together[n] {
					t.Errorf("%s in %s: question %d scores %g alone, %g beside others", task, format, n, alone[0], together[n])
				}
			}
			if format == "f16" && sum(together) < 3 {
				t.Errorf("%s: f16 answers %g of 4 at %d tokens", task, sum(together), length)
			}
		}
	}
	if _, err := a.questions("late", 12, 0); err == nil {
		t.Error("a question in 12 tokens is let through")
	}
	r, err := RunTask(t.Context(), s, tok, "late", "hq2", 512, 18, Part{Index: 1, Of: 2}, func(float64) {})
	if err != nil || len(r.Depths) != 8 || !slices.Equal(r.Numbers, []int{8, 9, 10, 11, 12, 13, 14, 15}) {
		t.Errorf("%+v, %v", r, err)
	}
}

func sum(x []float64) float64 { return mean(x) * float64(len(x)) }
