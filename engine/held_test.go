package engine

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
)

// A decoder that holds a prompt's prefix, from an earlier prompt that it was
// given, needs the rest only, and says what one that was given all of it says.
func TestHeldPrefixIsNotGivenAgain(t *testing.T) {
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			p, d := newRig(t, format, nil).start(t), newRig(t, format, nil).start(t)
			give := func(to *rig, id string, prompt []terse.Token) ([]terse.Token, int) {
				var got []terse.Token
				held, err := handoverRest(context.Background(), p, to, request(id, prompt, 70), func(o terse.Output) error {
					got = append(got, o.Tokens...)
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				return got, held
			}
			first := prompt(1, 400)
			if _, held := give(d, "first", first); held != 0 {
				t.Fatalf("an empty decoder holds %d tokens", held)
			}
			for i, n := range []int{10, 100, 300} {
				longer := slices.Concat(first, prompt(uint64(n), n))
				// The prefill side reuses what it holds, too: from its second time on
				// always the same.
				give(newRig(t, format, nil).start(t), fmt.Sprint("before", i), longer)
				want, held := give(newRig(t, format, nil).start(t), fmt.Sprint("fresh", i), longer)
				if held != 0 {
					t.Fatalf("an empty decoder holds %d tokens", held)
				}
				got, held := give(d, fmt.Sprint("again", i), longer)
				if held < 192 || held >= len(longer) {
					t.Errorf("prompt of %d: %d tokens are held", len(longer), held)
				}
				sameTokens(t, fmt.Sprintf("%d held", held), got, want)
			}
			waitIdle(t, d)
			waitIdle(t, p)
		})
	}
}

// The next turn of a conversation is its last turn's prompt, the answer that the
// decoder made, and more: the decoder holds all of it but the last page.
func TestHeldAnswer(t *testing.T) {
	p, d := newRig(t, "f16", nil).start(t), newRig(t, "f16", nil).start(t)
	turn := prompt(1, 300)
	for i := range 3 {
		var got []terse.Token
		held, err := handoverRest(context.Background(), p, d, request(fmt.Sprint("turn", i), turn, 100), func(o terse.Output) error {
			got = append(got, o.Tokens...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := (len(turn) - 100) / 64 * 64; i > 0 && held < want {
			t.Errorf("turn %d of %d tokens: %d are held, want %d", i, len(turn), held, want)
		}
		sameTokens(t, fmt.Sprint("turn ", i), got, p.greedy(t, turn, 100))
		turn = slices.Concat(turn, got, prompt(uint64(i+7), 60))
	}
}
