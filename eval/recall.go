package eval

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// recall lists "key number: value" lines up to the length, within one line, and
// asks for one of them, anywhere. (The first ones a format may keep exactly.)
func (a *author) recall(rng *rand.Rand, length int) (question, error) {
	where := rng.Float64()
	var keys, values []string
	var lines strings.Builder
	listed := map[string]bool{}
	for missing := 1; ; {
		for range missing {
			key, value := newKey(rng), newValue(rng)
			if !listed[key] {
				listed[key] = true
				keys, values = append(keys, key), append(values, value)
				fmt.Fprintf(&lines, "%s: %s\n", key, value)
			}
		}
		asked := int(where * float64(len(keys)))
		q, err := a.turn(values[asked], lines.String()+"Value of "+keys[asked]+"?")
		q.depth = where
		if err != nil {
			return question{}, err
		}
		if missing = (length - len(q.prompt)) * len(keys) / len(q.prompt); missing <= 0 {
			return q, nil
		}
	}
}

func newKey(rng *rand.Rand) string {
	colors, things := colors(), things()
	return fmt.Sprintf("%s %s %d", colors[rng.IntN(len(colors))], things[rng.IntN(len(things))], 100+rng.IntN(900))
}

func newValue(rng *rand.Rand) string { return fmt.Sprint(10000 + rng.IntN(90000)) }
