package tokenizer

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// piece is a part of the text on its way to the model. first marks the piece at
// the very beginning of the text.
type piece struct {
	text  string
	first bool
}

// preStep splits or rewrites a piece; it calls emit for each result, in order.
type preStep func(p piece, emit func(piece)) error

// matcher calls yield for each match in s, left to right, apart and not empty.
type matcher func(s string, yield func(start, end int)) error

// behavior says where the matched text goes.
type behavior int

// The behaviours of Hugging Face's splitting pre-tokenizers.
const (
	isolate behavior = iota // each match is a piece
	removed
	mergedWithPrevious
	mergedWithNext
	contiguous // adjacent matches are one piece
)

func parseBehavior(name string) (behavior, error) {
	switch name {
	case "Isolated":
		return isolate, nil
	case "Removed":
		return removed, nil
	case "MergedWithPrevious":
		return mergedWithPrevious, nil
	case "MergedWithNext":
		return mergedWithNext, nil
	case "Contiguous":
		return contiguous, nil
	}
	return 0, fmt.Errorf("split behavior %.40q is not supported", name)
}

// splitStep cuts pieces at matches. With invert, the text between the matches
// counts as matched and the matches as the rest.
func splitStep(find matcher, b behavior, invert bool) preStep {
	return func(p piece, emit func(piece)) error {
		c := cutter{p: p, b: b, emit: emit}
		at := 0
		err := find(p.text, func(start, end int) {
			if start > at {
				c.part(at, start, invert)
			}
			c.part(start, end, !invert)
			at = end
		})
		if err != nil {
			return err
		}
		if at < len(p.text) {
			c.part(at, len(p.text), invert)
		}
		c.flush()
		return nil
	}
}

// cutter joins parts to pieces by behaviour. [start, end) is not emitted yet.
type cutter struct {
	p          piece
	b          behavior
	emit       func(piece)
	start, end int
	match      bool // the last part was a match
}

func (c *cutter) part(start, end int, match bool) {
	joins := false
	switch c.b {
	case removed:
		if match {
			c.flush()
			c.start, c.end = end, end
			return
		}
	case mergedWithPrevious:
		joins = match && !c.match
	case mergedWithNext:
		joins = !match && c.match
	case contiguous:
		joins = match == c.match
	}
	if !joins {
		c.flush()
		c.start = start
	}
	c.end, c.match = end, match
}

func (c *cutter) flush() {
	if c.start < c.end {
		c.emit(piece{text: c.p.text[c.start:c.end], first: c.p.first && c.start == 0})
	}
	c.start = c.end
}

// inAlphabet runs a matcher on the byte-level spelling of the text: what
// splitters after a ByteLevel pre-tokenizer see. There the byte 0xB2 of a
// Chinese character is the digit "²", and models were trained with that.
func inAlphabet(find matcher) matcher {
	return func(s string, yield func(start, end int)) error {
		spelled := toAlphabet(s)
		at, n := 0, 0 // offset in spelled, and its byte in s
		to := func(offset int) int {
			n += utf8.RuneCountInString(spelled[at:offset])
			at = offset
			return n
		}
		return find(spelled, func(start, end int) {
			first := to(start)
			yield(first, to(end))
		})
	}
}

// byteLevelStep is the ByteLevel pre-tokenizer. Pieces keep their raw bytes:
// the model looks bytes up, so the alphabet is never written out.
func byteLevelStep(prefixSpace, useRegex bool) preStep {
	split := splitStep(segments(gpt2End), isolate, false)
	return func(p piece, emit func(piece)) error {
		if prefixSpace && !strings.HasPrefix(p.text, " ") {
			p.text = " " + p.text
		}
		if !useRegex {
			emit(p)
			return nil
		}
		return split(p, emit)
	}
}

// prependScheme says which pieces a Metaspace pre-tokenizer begins with its mark.
type prependScheme int

const (
	prependAlways prependScheme = iota
	prependFirst
	prependNever
)

// metaspaceStep writes spaces as mark, puts one in front, and with split cuts
// before each mark.
func metaspaceStep(mark string, scheme prependScheme, split bool) preStep {
	cut := splitStep(literal(mark), mergedWithNext, false)
	return func(p piece, emit func(piece)) error {
		p.text = strings.ReplaceAll(p.text, " ", mark)
		if len(p.text) > maxNormalized {
			return fmt.Errorf("the model's Metaspace makes %d bytes of the text: the limit is %d", len(p.text), maxNormalized)
		}
		wants := scheme == prependAlways || scheme == prependFirst && p.first
		if wants && !strings.HasPrefix(p.text, mark) {
			p.text = mark + p.text
		}
		if !split {
			emit(p)
			return nil
		}
		return cut(p, emit)
	}
}

// wordStartStep cuts before each mark that follows another character. It is
// used where no token has such a place inside, so merges never cross the cuts,
// and a text becomes words instead of one long piece.
func wordStartStep(mark string) preStep {
	return func(p piece, emit func(piece)) error {
		from := 0
		for i := 0; ; {
			n := strings.Index(p.text[i:], mark)
			if n < 0 {
				break
			}
			at := i + n
			if n > 0 && at > from {
				emit(piece{text: p.text[from:at], first: p.first && from == 0})
				from = at
			}
			i = at + len(mark)
		}
		emit(piece{text: p.text[from:], first: p.first && from == 0})
		return nil
	}
}

// literal matches a fixed, non-empty string.
func literal(pattern string) matcher {
	return func(s string, yield func(start, end int)) error {
		for at := 0; ; {
			n := strings.Index(s[at:], pattern)
			if n < 0 {
				return nil
			}
			yield(at+n, at+n+len(pattern))
			at += n + len(pattern)
		}
	}
}

// runes matches each rune that is accepts; with runs, each run of them.
func runes(accepts func(rune) bool, runs bool) matcher {
	return func(s string, yield func(start, end int)) error {
		from := -1
		for i, r := range s {
			switch {
			case !accepts(r):
				if from >= 0 {
					yield(from, i)
				}
				from = -1
			case from < 0:
				from = i
			case !runs:
				yield(from, i)
				from = i
			}
		}
		if from >= 0 {
			yield(from, len(s))
		}
		return nil
	}
}

// wordsAndSymbols is the Whitespace pre-tokenizer's \w+|[^\w\s]+.
func wordsAndSymbols(s string, yield func(start, end int)) error {
	kind := func(r rune) int {
		switch {
		case isWord(r):
			return 1
		case unicode.IsSpace(r):
			return 0
		}
		return 2
	}
	from, last := 0, 0
	for i, r := range s {
		if k := kind(r); k != last {
			if last != 0 {
				yield(from, i)
			}
			from, last = i, k
		}
	}
	if last != 0 {
		yield(from, len(s))
	}
	return nil
}

// isPunctuation is what Hugging Face calls punctuation: Unicode's, and the
// ASCII symbols.
func isPunctuation(r rune) bool {
	return unicode.IsPunct(r) || r < utf8.RuneSelf && unicode.IsSymbol(r)
}
