package eval

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

// quote shows running text and asks for the sentence that follows a given one.
func (a *author) quote(rng *rand.Rand, length int) (question, error) {
	// What is asked is chosen from the part that stands in the prompt however
	// long the rest of it turns out.
	const rest = 128
	if length < 2*rest {
		return question{}, fmt.Errorf("cannot ask for a quote in a prompt of %d tokens: give at least %d", length, 2*rest)
	}
	for range 100 {
		p, err := a.somewhere(rng, length)
		if err != nil {
			return question{}, err
		}
		given, next, ok := neighbours(rng, a.words(p, length-rest))
		if !ok || strings.Count(a.words(p, length), given) != 1 {
			continue
		}
		q, err := fit(length, func(fill int) (question, error) {
			return a.turn(next, a.words(p, fill), "\nWhich sentence comes right after this one? \"", given, "\"")
		})
		whole := a.words(p, length)
		q.depth = float64(strings.Index(whole, given)) / float64(len(whole))
		return q, err
	}
	return question{}, fmt.Errorf("cannot find two plain sentences in a row in %d tokens of text", length)
}

// neighbours chooses two plain sentences that follow each other on one line,
// each with its leading space.
func neighbours(rng *rand.Rand, text string) (given, next string, ok bool) {
	pairs := regexp.MustCompile(`[.!?]( [A-Z][^.!?"\n]{12,80}[.!?])( [A-Z][^.!?"\n]{12,60}[.!?]) [A-Z]`).FindAllStringSubmatch(text, -1)
	if len(pairs) == 0 {
		return "", "", false
	}
	pair := pairs[rng.IntN(len(pairs))]
	return pair[1], pair[2], true
}
