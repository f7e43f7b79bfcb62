package eval

import (
	"context"
	"fmt"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model/session"
)

// Agreement is how long greedy answers in a format stay f16's. The two run free
// of each other: after the first token that differs they are different texts, of
// which positions still agree by chance.
type Agreement struct {
	Format string
	Length int       // tokens generated of each prompt
	Until  []float64 // per prompt: tokens before the first that differs
	Equal  []float64 // per prompt: share of positions with the same token
}

// Agree continues every window's first from tokens greedily by length tokens, in
// f16 and in each format. progress is told the share done, 0 to 1.
func Agree(ctx context.Context, s Subject, windows [][]terse.Token, formats []string, from, length int, progress func(done float64)) ([]*Agreement, error) {
	if limit := s.Model.Config.MaxContext - length; from < 1 || length < 1 || from > limit {
		return nil, fmt.Errorf("cannot continue prompts of %d tokens by %d: the model's context is %d", from, length, s.Model.Config.MaxContext)
	}
	out := make([]*Agreement, len(formats))
	for i, f := range formats {
		out[i] = &Agreement{Format: f, Length: length}
	}
	for n, w := range windows {
		if len(w) < from {
			return nil, fmt.Errorf("cannot continue a window of %d tokens after its first %d", len(w), from)
		}
		exact, err := s.greedy(ctx, exactFormat, w[:from], length)
		if err != nil {
			return nil, err
		}
		for i, a := range out {
			got := exact
			if a.Format != exactFormat {
				if got, err = s.greedy(ctx, a.Format, w[:from], length); err != nil {
					return nil, err
				}
			}
			a.add(exact, got)
			progress((float64(n) + float64(i+1)/float64(len(out))) / float64(len(windows)))
		}
	}
	return out, nil
}

// add compares one continuation with f16's.
func (a *Agreement) add(exact, got []terse.Token) {
	until, equal := len(exact), 0
	for i := range exact {
		if exact[i] == got[i] {
			equal++
		} else {
			until = min(until, i)
		}
	}
	a.Until = append(a.Until, float64(until))
	a.Equal = append(a.Equal, float64(equal)/float64(len(exact)))
}

// greedy is the prompt's continuation by n most likely tokens, past any end.
func (s Subject) greedy(ctx context.Context, format string, prompt []terse.Token, n int) ([]terse.Token, error) {
	run, err := s.session(format, len(prompt), len(prompt)+n)
	if err != nil {
		return nil, err
	}
	logits, err := prefill(run, prompt)
	if err != nil {
		return nil, err
	}
	var said []terse.Token
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if said = append(said, argmax(logits)); len(said) == n {
			return said, nil
		}
		if logits, err = run.Forward(said[len(said)-1:], session.LastLogits); err != nil {
			return nil, err
		}
	}
}
