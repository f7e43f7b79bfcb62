package eval

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// leastFacts is how many facts stand in one text at least, and are asked for, and
// mostFacts at most.
const leastFacts, mostFacts = 4, 6

// fact is a sentence that stands in running text, and what it is asked by.
type fact struct{ sentence, question, answer string }

// retrieval hides facts between the sentences of running text and asks for some of
// them.
func (a *author) retrieval(rng *rand.Rand, length int) ([]question, error) {
	p, err := a.somewhere(rng, length)
	if err != nil {
		return nil, err
	}
	facts := newFacts(rng, leastFacts+rng.IntN(mostFacts-leastFacts+1))
	asked := rng.Perm(len(facts))[:leastFacts]
	places := make([]float64, len(facts))
	for i := range places {
		places[i] = rng.Float64()
	}
	slices.Sort(places)
	var text string
	ask := func(f fact) (question, error) { return a.turn(f.answer, text+"\nQuestion: "+f.question) }
	first, err := fit(length, func(fill int) (q question, err error) {
		if text, err = insert(a.words(p, fill), facts, places); err != nil {
			return q, err
		}
		return ask(facts[asked[0]])
	})
	if err != nil {
		return nil, err
	}
	first.depth = places[asked[0]]
	questions := []question{first}
	for _, i := range asked[1:] { // of the same text: a few tokens longer or shorter
		q, err := ask(facts[i])
		if err != nil {
			return nil, err
		}
		q.depth = places[i]
		questions = append(questions, q)
	}
	return questions, nil
}

// insert puts facts before sentences of text, each at its share of the way.
func insert(text string, facts []fact, places []float64) (string, error) {
	starts := sentenceStarts(text)
	if len(starts) == 0 {
		return "", fmt.Errorf("cannot hide a fact in %d characters of text: give longer prompts", len(text))
	}
	var b strings.Builder
	from := 0
	for i, f := range facts {
		at := starts[int(places[i]*float64(len(starts)))]
		b.WriteString(text[from:at])
		b.WriteString(f.sentence + " ")
		from = at
	}
	b.WriteString(text[from:])
	return b.String(), nil
}

// newFacts makes n facts of which no two are about the same person or thing, so
// that every question has one answer.
func newFacts(rng *rand.Rand, n int) []fact {
	names := []string{"Kate", "Tom", "Lily", "Finn", "Mia", "Jack", "Ella", "Hugo", "Noah", "Joe", "Anna", "Ben"}
	colors, things := colors(), things()
	for _, words := range [][]string{names, colors, things} {
		rng.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
	}
	facts := make([]fact, n)
	for i := range facts {
		facts[i] = newFact(rng, names[i], colors[i], things[i])
	}
	return facts
}

func newFact(rng *rand.Rand, name, color, thing string) fact {
	hidden := color + " " + thing
	number := fmt.Sprint(10000 + rng.IntN(90000))
	switch rng.IntN(5) {
	case 0:
		return fact{"The secret number of the " + hidden + " is " + number + ".",
			"What is the secret number of the " + hidden + "?", number + "."}
	case 1:
		return fact{name + " keeps the code " + number + " in the " + hidden + ".",
			"What code does " + name + " keep in the " + hidden + "?", number + "."}
	case 2:
		return fact{"The " + hidden + " belongs to " + name + ".", "Who owns the " + hidden + "?", name + "."}
	case 3:
		place := []string{"apple tree", "kitchen table", "wooden bed"}[rng.IntN(3)]
		return fact{name + " hid the " + thing + " under the " + place + ".",
			"Where did " + name + " hide the " + thing + "?", "Under the " + place + "."}
	default:
		password := fmt.Sprintf("%s%s%d", color, thing, 10+rng.IntN(90))
		return fact{"The password of " + name + " is " + password + ".",
			"What is the password of " + name + "?", password + "."}
	}
}
