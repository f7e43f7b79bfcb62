package eval

import (
	"context"
	"fmt"
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
}

// TaskNames are the tasks that RunTask knows.
func TaskNames() []string { return []string{"retrieval", "recall", "quote"} }

// RunTask asks cases questions about prompts of length tokens, in the forms that
// the built-in model was trained on, and counts the greedy answers that are
// exact to the last character. The same task, length and number of cases are the
// same questions for every format. progress is told the share done, 0 to 1.
func RunTask(ctx context.Context, s Subject, tok *tokenizer.Tokenizer, task, format string, length, cases int, progress func(done float64)) (TaskResult, error) {
	result := TaskResult{Task: task, Format: format, Length: length, Cases: cases}
	if limit := s.Model.Config.MaxContext - maxAnswer; length > limit {
		return result, fmt.Errorf("cannot run task %s with prompts of %d tokens: the model's context leaves %d for them", task, length, limit)
	}
	a, err := newAuthor(tok)
	if err != nil {
		return result, err
	}
	for n := range cases {
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
			result.Right++
			score = 1
		}
		result.Scores = append(result.Scores, score)
		progress(float64(n+1) / float64(cases))
	}
	return result, nil
}

// maxAnswer is room in the context for the longest answer, a sentence.
const maxAnswer = 128

// answers decodes greedily until the model ends its turn, or has said what the
// answer does not begin with: from there on it can only be wrong.
func answers(s Subject, tok *tokenizer.Tokenizer, format string, chat turnTokens, q question) (bool, error) {
	run, err := s.session(format, len(q.prompt)+maxAnswer)
	if err != nil {
		return false, err
	}
	run.Select(len(q.prompt))
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
