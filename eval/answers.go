package eval

import (
	"context"
	"slices"
	"strings"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/tokenizer"
)

const (
	// maxAnswer is room in the context for the longest answer, a sentence.
	maxAnswer = 128
	// ownTokens is how much of a prompt's end every question computes for itself,
	// though it be like the others': formats that choose tokens do it there.
	ownTokens = 64
)

// answers asks scenes side by side, each some questions that begin alike, decodes
// greedily and scores the answers of all of them, 1 where exact. What a scene's
// questions have in common is computed once, which changes nothing.
func answers(ctx context.Context, s Subject, tok *tokenizer.Tokenizer, format string, chat turnTokens, scenes [][]question) ([]float64, error) {
	stems := make([]*stem, len(scenes))
	longest := 0
	for i, questions := range scenes {
		stems[i] = newStem(questions)
		longest = max(longest, stems[i].longest)
	}
	prompts := make([]int, len(scenes))
	for i, st := range stems {
		prompts[i] = st.promptLen
	}
	sessions, top, err := s.sessions(format, prompts, longest)
	if err != nil {
		return nil, err
	}
	if err := tell(ctx, stems, sessions); err != nil {
		return nil, err
	}
	var scores []float64
	for i, questions := range scenes {
		for _, q := range questions {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			run := sessions[i].Fork(longest)
			mark(run, len(q.prompt), top)
			score := 0.0
			if right, err := say(run, tok, chat, q, stems[i].shared); err != nil {
				return nil, err
			} else if right {
				score = 1
			}
			scores = append(scores, score)
		}
	}
	return scores, nil
}

// stem is what the questions of a scene have in common.
type stem struct {
	prompt, later []terse.Token
	shared        int // tokens of both
	promptLen     int // of the questions', where the stem goes beyond it; else more than it has
	longest       int // tokens of the longest question, with its answer
}

func newStem(questions []question) *stem {
	first := questions[0]
	st := &stem{prompt: first.prompt, later: first.later}
	for _, q := range questions {
		st.longest = max(st.longest, len(q.prompt)+len(q.later)+maxAnswer)
		st.prompt = st.prompt[:common(st.prompt, q.prompt)]
		st.later = st.later[:common(st.later, q.later)]
	}
	if st.promptLen = len(first.prompt); len(first.later) == 0 {
		st.prompt = st.prompt[:max(0, min(len(st.prompt), len(first.prompt)-ownTokens))]
		st.promptLen = st.longest
	}
	st.later = st.later[:max(0, min(len(st.later), len(first.later)-1))] // the last token's logits are each question's own
	st.shared = len(st.prompt) + len(st.later)
	return st
}

// common is how many tokens two texts begin with alike.
func common(a, b []terse.Token) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// tell computes the stems: their prompts in chunks, what comes later token by
// token, side by side.
func tell(ctx context.Context, stems []*stem, sessions []*session.Session) error {
	for i, st := range stems {
		if err := ctx.Err(); err != nil {
			return err
		}
		for part := range slices.Chunk(st.prompt, chunk) {
			if _, err := sessions[i].Forward(part, session.NoLogits); err != nil {
				return err
			}
		}
	}
	for at := 0; ; at++ {
		var runs []*session.Session
		var next []terse.Token
		for i, st := range stems {
			if at < len(st.later) {
				runs, next = append(runs, sessions[i]), append(next, st.later[at])
			}
		}
		if len(runs) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := session.Decode(runs, next, session.NoLogits); err != nil {
			return err
		}
	}
}

// say appends what is left of a question and decodes until the model ends its
// turn, or has said what the answer does not begin with: from there on it can only
// be wrong.
func say(run *session.Session, tok *tokenizer.Tokenizer, chat turnTokens, q question, shared int) (bool, error) {
	logits, err := prefill(run, slices.Concat(q.prompt, q.later)[shared:])
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
