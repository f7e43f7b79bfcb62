package eval

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/terse-llm/terse/tokenizer"
)

// TaskResult is how many questions a model answered exactly with a KV format.
type TaskResult struct {
	Task, Format string
	Metric       string `json:",omitempty"` // of a task file; else answers are right or wrong
	Length       int    // tokens of a prompt, within a few; 0 where they are a file's
	Cases, Right int
	Scores       []float64 `json:",omitempty"` // of each case, 0 to 1; none in reports of earlier versions
	Depths       []float64 `json:",omitempty"` // of each case: where in its text the answer stands, 0 (first) to 1
	Numbers      []int     `json:",omitempty"` // of the cases, where they are a Part
}

// scene is how many cases of a task ask about one text, which is computed once.
func scene(task string) int {
	switch task {
	case "recall", "late":
		return listAsks
	case "retrieval":
		return leastFacts
	}
	return 1
}

// Part is which cases of a task to run, so that several processes or machines
// can share it: those of every Of-th scene from Index on. The zero value is all.
type Part struct{ Index, Of int }

// ParsePart reads the first of sixteen parts as 1/16. "" is all.
func ParsePart(s string) (Part, error) {
	if s == "" {
		return Part{}, nil
	}
	a, b, _ := strings.Cut(s, "/")
	i, err := strconv.Atoi(a)
	n, err2 := strconv.Atoi(b)
	if err != nil || err2 != nil || i < 1 || i > n {
		return Part{}, fmt.Errorf("cannot read the part %q: write the first of sixteen as 1/16", s)
	}
	return Part{Index: i - 1, Of: n}, nil
}

// of are the part's case numbers, of cases in scenes of so many.
func (p Part) of(cases, scene int) []int {
	var numbers []int
	for n := range cases {
		if p.Of == 0 || n/scene%p.Of == p.Index {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// begin is the result of a part before its first case.
func (p Part) begin(t TaskResult, cases int) (TaskResult, []int) {
	each := 1
	if t.Metric == "" { // a task of ours
		each = scene(t.Task)
	}
	numbers := p.of(cases, each)
	if t.Cases = len(numbers); p.Of != 0 {
		t.Numbers = numbers
	}
	return t, numbers
}

// add keeps the score of the next case.
func (t *TaskResult) add(score float64) {
	if t.Scores = append(t.Scores, score); score == 1 {
		t.Right++
	}
}

// TaskNames are the tasks that RunTask knows.
func TaskNames() []string { return []string{"retrieval", "recall", "quote", "late"} }

// RunTask asks cases questions about prompts of length tokens, in the forms that
// the built-in model was trained on, and counts the greedy answers that are
// exact to the last character. The same task, length and number of cases are the
// same questions for every format. progress is told the share done, 0 to 1.
func RunTask(ctx context.Context, s Subject, tok *tokenizer.Tokenizer, task, format string, length, cases int, part Part, progress func(done float64)) (TaskResult, error) {
	result, numbers := part.begin(TaskResult{Task: task, Format: format, Length: length}, cases)
	if limit := s.Model.Config.MaxContext - maxAnswer; length > limit {
		return result, fmt.Errorf("cannot run task %s with prompts of %d tokens: the model's context leaves %d for them", task, length, limit)
	}
	a, err := newAuthor(tok)
	if err != nil {
		return result, err
	}
	together := 1
	if task == "late" { // its text is decoded
		together = decodeTogether
	}
	for some := range slices.Chunk(numbers, together*scene(task)) {
		var scenes [][]question
		for part := range slices.Chunk(some, scene(task)) {
			questions, err := a.questions(task, length, part[0]/scene(task))
			if err != nil {
				return result, err
			}
			scenes = append(scenes, questions[:len(part)])
		}
		scores, err := answers(ctx, s, tok, format, a.chat, scenes)
		if err != nil {
			return result, err
		}
		for i, q := range slices.Concat(scenes...) {
			result.add(scores[i])
			result.Depths = append(result.Depths, q.depth)
		}
		progress(float64(len(result.Scores)) / float64(len(numbers)))
	}
	return result, nil
}
