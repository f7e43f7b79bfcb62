package eval

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Every case belongs to one part, and parts that are joined are the whole.
func TestParts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	whole := TaskResult{Task: "quote", Format: "hq2", Length: 9, Cases: 21}
	for range whole.Cases {
		whole.add(float64(rng.IntN(2)))
		whole.Depths = append(whole.Depths, rng.Float64())
	}
	for _, of := range []string{"/1", "/2", "/5", "/21"} {
		r := &Report{}
		n := strings.TrimPrefix(of, "/")
		for i := 1; ; i++ {
			p, err := ParsePart(string(rune('0'+i%10)) + of)
			if i >= 10 {
				p, err = Part{Index: i - 1, Of: 21}, nil
			}
			if err != nil {
				break
			}
			part, numbers := p.begin(TaskResult{Task: "quote", Format: "hq2", Length: 9}, whole.Cases)
			for _, n := range numbers {
				part.add(whole.Scores[n])
				part.Depths = append(part.Depths, whole.Depths[n])
			}
			if err := r.Merge(&Report{Tasks: []TaskResult{part}}); err != nil {
				t.Fatal(err)
			}
			if err := r.Merge(&Report{Tasks: []TaskResult{part}}); err == nil {
				t.Errorf("part %d%s was taken in twice", i, of)
			}
			if i == 21 {
				break
			}
		}
		got := r.Tasks[0]
		if !slices.Equal(got.Numbers, Part{}.of(whole.Cases, 1)) {
			t.Errorf("joined of %s parts: cases %v", n, got.Numbers)
		}
		got.Numbers = nil
		if !reflect.DeepEqual(got, whole) {
			t.Errorf("joined of %s parts: %+v, want %+v", n, got, whole)
		}
	}
	for _, bad := range []string{"0/4", "5/4", "1", "a/b", "1/0", "-1/3"} {
		if _, err := ParsePart(bad); err == nil {
			t.Errorf("part %q is let through", bad)
		}
	}
}

// A merged report names every version that measured, once.
func TestVersions(t *testing.T) {
	r := &Report{}
	for _, v := range []string{"", "a", "b", "a", "b, c", ""} {
		if err := r.Merge(&Report{Version: v}); err != nil {
			t.Fatal(err)
		}
	}
	if r.Version != "a, b, c" {
		t.Errorf("merged versions are %q", r.Version)
	}
}

// Cases are counted where their answer stands, lengths in order.
func TestDepths(t *testing.T) {
	r := &Report{Tasks: []TaskResult{
		{Task: "recall", Format: "f16", Length: 20, Cases: 3, Right: 2, Scores: []float64{1, 0, 1}, Depths: []float64{0, 0.5, 1}},
		{Task: "quote", Format: "f16", Length: 5, Cases: 1, Right: 1, Scores: []float64{1}},
		{Task: "recall", Format: "f16", Length: 10, Cases: 1, Right: 1, Scores: []float64{1}, Depths: []float64{0.49}},
	}}
	want := strings.Join([]string{
		"| task      | format | 0–50 % | 50–100 % |",
		"|-----------|--------|--------|----------|",
		"| recall@10 | `f16`  | 1/1    | –        |",
		"| recall@20 | `f16`  | 1/1    | 1/2      |",
	}, "\n") + "\n"
	if got := r.Depths(2); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A question's depth is where its answer stands.
func TestQuestionDepth(t *testing.T) {
	tok := defaultTokenizer(t)
	a, err := newAuthor(tok)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range TaskNames() {
		var questions []question
		for n := range 3 {
			some, err := a.questions(task, 1024, n)
			if err != nil {
				t.Fatal(err)
			}
			if len(some) != scene(task) {
				t.Errorf("%s: %d questions about a text, want %d", task, len(some), scene(task))
			}
			questions = append(questions, some...)
		}
		for n, q := range questions {
			if l := len(q.prompt) + len(q.later); l < 1000 || l > 1040 {
				t.Errorf("%s %d: %d tokens, want about 1024", task, n, l)
			}
			text := tok.Decode(slices.Concat(q.prompt, q.later), false)
			at := float64(strings.Index(text, strings.TrimSuffix(q.answer, "."))) / float64(len(text))
			if task == "retrieval" && strings.HasPrefix(q.answer, "Under") {
				continue // the text says "under"
			}
			if at < 0 || at < q.depth-0.15 || at > q.depth+0.15 {
				t.Errorf("%s %d: the answer stands at %.2f, its depth is %.2f", task, n, at, q.depth)
			}
		}
	}
}
