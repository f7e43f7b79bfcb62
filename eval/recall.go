package eval

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer"
)

// listAsks is how many lines of a list are asked for.
const listAsks = 8

// recall lists "key number: value" lines up to the length, within one line, and
// asks for some of them, anywhere. (The first ones a format may keep exactly.)
func (a *author) recall(rng *rand.Rand, length int) ([]question, error) {
	lines := newLines()
	ask := func(where float64) (question, error) {
		key, value := lines.at(where)
		q, err := a.turn(value, lines.text.String()+"Value of "+key+"?")
		q.depth = where
		return q, err
	}
	for missing := 1; missing > 0; {
		lines.add(rng, missing)
		q, err := ask(0)
		if err != nil {
			return nil, err
		}
		missing = (length - len(q.prompt)) * len(lines.keys) / len(q.prompt)
	}
	return some(rng, ask)
}

// some are the questions about places drawn at random.
func some(rng *rand.Rand, ask func(where float64) (question, error)) ([]question, error) {
	var questions []question
	for range listAsks {
		q, err := ask(rng.Float64())
		if err != nil {
			return nil, err
		}
		questions = append(questions, q)
	}
	return questions, nil
}

// lateList is the share of late's text that is the list.
const lateList = 4

// late lists lines in the first quarter of the length, goes on with running text
// that is decoded token by token up to the length, and then asks for some of the
// lines: what a long generation has left of them. The text is the same whatever
// a format would have said, so that all formats are asked at the same length.
func (a *author) late(rng *rand.Rand, length int) ([]question, error) {
	lines := newLines()
	prompt := []terse.Token{a.chat.user}
	for missing := 1; missing > 0; {
		lines.add(rng, missing)
		ids, err := a.tok.Encode(lines.text.String()+"\n", tokenizer.EncodeOptions{})
		if err != nil {
			return nil, err
		}
		prompt = append(prompt[:1], ids...)
		missing = (length/lateList - len(prompt)) * len(lines.keys) / len(prompt)
	}
	const room = 24 // for the question
	fill := length - len(prompt) - room
	if fill < 1 {
		return nil, fmt.Errorf("cannot ask a question after %d tokens: give more", length)
	}
	p, err := a.somewhere(rng, fill)
	if err != nil {
		return nil, err
	}
	return some(rng, func(where float64) (question, error) {
		key, value := lines.at(where)
		ids, err := a.tok.Encode("\nValue of "+key+"?", tokenizer.EncodeOptions{})
		later := slices.Concat(p.text[p.at:p.at+fill], ids, []terse.Token{a.chat.end, a.chat.assistant})
		return question{prompt: prompt, later: later, answer: value, depth: where * float64(len(prompt)) / float64(length)}, err
	})
}

// lines are keys with values, as text too.
type lines struct {
	keys, values []string
	listed       map[string]bool
	text         strings.Builder
}

func newLines() *lines { return &lines{listed: map[string]bool{}} }

// add adds n lines, less those whose key there is.
func (l *lines) add(rng *rand.Rand, n int) {
	for range n {
		key, value := newKey(rng), newValue(rng)
		if !l.listed[key] {
			l.listed[key] = true
			l.keys, l.values = append(l.keys, key), append(l.values, value)
			fmt.Fprintf(&l.text, "%s: %s\n", key, value)
		}
	}
}

// at is the line at a share of the way.
func (l *lines) at(where float64) (key, value string) {
	i := int(where * float64(len(l.keys)))
	return l.keys[i], l.values[i]
}

func newKey(rng *rand.Rand) string {
	colors, things := colors(), things()
	return fmt.Sprintf("%s %s %d", colors[rng.IntN(len(colors))], things[rng.IntN(len(things))], 100+rng.IntN(900))
}

func newValue(rng *rand.Rand) string { return fmt.Sprint(10000 + rng.IntN(90000)) }
