package main

import (
	"math"
	"testing"

	"github.com/terse-llm/terse"
)

// Documents share tokens evenly, and what short ones leave the others have.
func TestShareOf(t *testing.T) {
	f := func(tokens, want int, lengths ...int) {
		t.Helper()
		docs := make([][]terse.Token, len(lengths))
		for i, n := range lengths {
			docs[i] = make([]terse.Token, n)
		}
		if got := shareOf(docs, tokens); got != want {
			t.Errorf("%v share %d tokens by %d, want %d", lengths, tokens, got, want)
		}
	}
	f(100, math.MaxInt, 50, 20, 30)
	f(99, 49, 50, 20, 30)
	f(90, 40, 50, 20, 30)
	f(60, 20, 50, 20, 30)
	f(10, 3, 50, 20, 30)
	f(10, math.MaxInt)
}
