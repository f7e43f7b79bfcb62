package eval

import (
	"strings"
	"unicode"
)

// Metrics are the ways to score an answer, each 0 to 1.
func Metrics() []string { return []string{"accuracy", "rouge1", "edit"} }

// score is an answer's best score against the right ones.
func score(metric, got string, answers []string) float64 {
	best := 0.0
	for _, want := range answers {
		switch metric {
		case "accuracy":
			best = max(best, accuracy(got, want))
		case "rouge1":
			best = max(best, rouge1(got, want))
		case "edit":
			best = max(best, editSimilarity(got, want))
		default:
			panic("BUG: metric " + metric)
		}
	}
	return best
}

// words are a text's words: letters and digits in lower case.
func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// accuracy is 1 where the answer's words begin with the right one's: models
// explain themselves after it.
func accuracy(got, want string) float64 {
	g, w := words(got), words(want)
	if len(w) == 0 || len(g) < len(w) {
		return 0
	}
	for i := range w {
		if g[i] != w[i] {
			return 0
		}
	}
	return 1
}

// rouge1 is ROUGE-1's F measure (Lin 2004): the harmonic mean of the shares of
// each text's words that the other has, without stemming.
func rouge1(got, want string) float64 {
	g, w := words(got), words(want)
	if len(g) == 0 || len(w) == 0 {
		return 0
	}
	left := map[string]int{}
	for _, word := range w {
		left[word]++
	}
	common := 0
	for _, word := range g {
		if left[word] > 0 {
			left[word]--
			common++
		}
	}
	return 2 * float64(common) / float64(len(g)+len(w))
}

// editSimilarity is 1 less the Levenshtein distance over the longer text's
// characters; of two empty texts it is 1. Both are trimmed.
func editSimilarity(got, want string) float64 {
	a, b := []rune(strings.TrimSpace(got)), []rune(strings.TrimSpace(want))
	if len(a)+len(b) == 0 {
		return 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, x := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, y := range b {
			change := diagonal
			if x != y {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return 1 - float64(row[len(b)])/float64(max(len(a), len(b)))
}
