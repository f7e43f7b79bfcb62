package eval

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model/session"
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

// Part is which cases of a task to run, so that several processes or machines
// can share it: those whose number is Index modulo Of. The zero value is all.
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

// of are the part's case numbers, of cases.
func (p Part) of(cases int) []int {
	var numbers []int
	for n := range cases {
		if p.Of == 0 || n%p.Of == p.Index {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// begin is the result of a part before its first case.
func (p Part) begin(t TaskResult, cases int) (TaskResult, []int) {
	numbers := p.of(cases)
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
func TaskNames() []string { return []string{"retrieval", "recall", "quote"} }

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
	for i, n := range numbers {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		q, err := a.question(task, length, n)
		if err != nil {
			return result, err
		}
		right, err := answers(s, tok, format, a.chat, q)
		if err != nil {
			return result, err
		}
		score := 0.0
		if right {
			score = 1
		}
		result.add(score)
		result.Depths = append(result.Depths, q.depth)
		progress(float64(i+1) / float64(len(numbers)))
	}
	return result, nil
}

// maxAnswer is room in the context for the longest answer, a sentence.
const maxAnswer = 128

// answers decodes greedily until the model ends its turn, or has said what the
// answer does not begin with: from there on it can only be wrong.
func answers(s Subject, tok *tokenizer.Tokenizer, format string, chat turnTokens, q question) (bool, error) {
	run, err := s.session(format, len(q.prompt), len(q.prompt)+maxAnswer)
	if err != nil {
		return false, err
	}
	logits, err := prefill(run, q.prompt)
	if err != nil {
		return false, err
	}
	said, text := tok.NewContinuation(false), ""
	for range maxAnswer {
		next := argmax(logits)
		if next == chat.end {
			return text+said.Flush() == q.answer, nil
		}
		if text += said.Push(next); !strings.HasPrefix(q.answer, text) {
			return false, nil
		}
		if logits, err = run.Forward([]terse.Token{next}, session.LastLogits); err != nil {
			return false, err
		}
	}
	return false, nil
}

// prefill appends a prompt and returns the logits of its last token.
func prefill(run *session.Session, prompt []terse.Token) ([]float32, error) {
	for len(prompt) > chunk {
		if _, err := run.Forward(prompt[:chunk], session.NoLogits); err != nil {
			return nil, err
		}
		prompt = prompt[chunk:]
	}
	return run.Forward(prompt, session.LastLogits)
}

func argmax(logits []float32) terse.Token {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	return terse.Token(best)
}
