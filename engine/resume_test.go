package engine

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
)

// What follows the tokens of a lost worker, at another, is what would have
// followed them there: in every format, greedy or drawn, whatever they were cut
// at, and whether the first computed the prompt or had it from a third.
func TestResumeGoesOnAsBefore(t *testing.T) {
	const n = 150
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			p, d := newRig(t, format, nil).start(t), newRig(t, format, nil).start(t)
			for i, s := range []terse.Sampling{
				{}, {Temperature: 1, Seed: 7}, {Temperature: 0.8, TopP: 0.9, Seed: 8, PresencePenalty: 0.5, FrequencyPenalty: 0.4, RepetitionPenalty: 1.2},
			} {
				s.Logprobs, s.PromptLogprobs = -1, -1
				req := request(fmt.Sprint("r", i), prompt(uint64(i), 230), n)
				req.Sampling = s
				var want []terse.Token
				var first *terse.Usage
				if err := handover(context.Background(), p, d, req, func(o terse.Output) error {
					if first == nil {
						first = o.Usage
					}
					want = append(want, o.Tokens...)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if first == nil || first.CachedTokens != 0 || first.CompletionTokens != 1 {
					t.Fatalf("usage of the first output: %+v", first)
				}
				for _, at := range []int{1, 26, 100, n - 1} {
					other := newRig(t, format, nil).start(t)
					rest := *req
					rest.Prompt = slices.Concat(req.Prompt, want[:at])
					rest.Resumed = at
					got, last, err := other.collect(context.Background(), &rest)
					if err != nil {
						t.Fatal(err)
					}
					sameTokens(t, fmt.Sprintf("sampling %d behind %d tokens", i, at), got, want[at:])
					if u := last.Usage; u.PromptTokens != 230 || u.CompletionTokens != n {
						t.Errorf("usage %+v", u)
					}
				}
			}
		})
	}
}

// A worker that holds a prefix does not make use of more of it than the lost one
// did, where it would show.
func TestResumeReusesNoMore(t *testing.T) {
	for _, format := range formats() {
		r := newRig(t, format, nil).start(t)
		text := prompt(1, 400)
		if _, _, err := r.collect(context.Background(), request("before", text, 1)); err != nil {
			t.Fatal(err)
		}
		for _, reused := range []int{0, 64, 128} {
			req := request(fmt.Sprint("x", reused), text, 20)
			req.Resumed, req.Reused = 10, reused
			_, last, err := r.collect(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			want := reused
			if format == "f16" {
				want = 384
			}
			if got := last.Usage.CachedTokens; got != want {
				t.Errorf("%s: %d tokens are reused, want %d", format, got, want)
			}
		}
	}
}
