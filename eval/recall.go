package eval

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// recall lists "key number: value" lines up to the length, within one line, and
// asks for the first: the one that is furthest away.
func (a *author) recall(rng *rand.Rand, length int) (question, error) {
	key, value := newKey(rng), newValue(rng)
	asked := map[string]bool{key: true}
	lines := []string{key + ": " + value + "\n"}
	ask := "Value of " + key + "?"
	for {
		q, err := a.turn(strings.Join(lines, "")+ask, value)
		if err != nil {
			return question{}, err
		}
		missing := (length - len(q.prompt)) * len(lines) / len(q.prompt)
		if missing <= 0 {
			return q, nil
		}
		for range missing {
			if key = newKey(rng); !asked[key] {
				asked[key] = true
				lines = append(lines, key+": "+newValue(rng)+"\n")
			}
		}
	}
}

func newKey(rng *rand.Rand) string {
	colors, things := colors(), things()
	return fmt.Sprintf("%s %s %d", colors[rng.IntN(len(colors))], things[rng.IntN(len(things))], 100+rng.IntN(900))
}

func newValue(rng *rand.Rand) string { return fmt.Sprint(10000 + rng.IntN(90000)) }
