package tokenizer

import (
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// normalizer is a chain of rewrites; nil changes nothing.
type normalizer []func(string) string

// Bounds on what a model's files may turn a text into. One rewrite makes a text
// at most maxGrowth times longer, and its result is checked before the next.
const (
	maxSteps      = 32
	maxGrowth     = 16
	maxNormalized = 4 * MaxText
)

func (n normalizer) apply(s string) (string, error) {
	for _, f := range n {
		if s = f(s); len(s) > maxNormalized {
			return "", fmt.Errorf("the model's normalizer makes %d bytes of the text: the limit is %d", len(s), maxNormalized)
		}
	}
	return s, nil
}

// metaspace is the character SentencePiece writes for a space.
const metaspace = "▁"

func prepend(prefix string) func(string) string {
	return func(s string) string {
		if s == "" {
			return s
		}
		return prefix + s
	}
}

func replaceAll(old, with string) func(string) string {
	r := strings.NewReplacer(old, with)
	return r.Replace
}

// unicodeForm is one of the four Unicode normal forms. Runs of more than 30
// combining marks, which no language has, get a grapheme joiner in between
// (Unicode's stream-safe form).
func unicodeForm(name string) (func(string) string, bool) {
	switch name {
	case "NFC":
		return norm.NFC.String, true
	case "NFD":
		return norm.NFD.String, true
	case "NFKC":
		return norm.NFKC.String, true
	case "NFKD":
		return norm.NFKD.String, true
	}
	return nil, false
}
