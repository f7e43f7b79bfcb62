package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"unicode"

	"github.com/terse-llm/terse/tokenizer"
)

// marks are unguessable words that stand, in one rendering, for text of a
// client that must not be read as control tokens. A mark is ASCII letters and
// digits only: nothing that a template does to text (trimming, splitting,
// joining, escaping) changes it.
type marks struct {
	word     string
	controls []string
	texts    []string // mark i stands for texts[i]; first the controls, then endings
	replace  *strings.Replacer
}

// newMarks makes marks for the texts of control tokens, the longest first.
func newMarks(controls []string) *marks {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	m := &marks{word: "mark" + hex.EncodeToString(b[:]) + "n", controls: controls}
	pairs := make([]string, 0, 2*len(controls))
	for _, text := range controls {
		pairs = append(pairs, text, m.mark(text))
	}
	m.replace = strings.NewReplacer(pairs...)
	return m
}

func (m *marks) mark(text string) string {
	m.texts = append(m.texts, text)
	return m.word + strconv.Itoa(len(m.texts)-1) + "x"
}

// guard puts marks in the place of control tokens in content, and of an ending
// that the text after it could complete to one.
func (m *marks) guard(content string) string {
	content = m.replace.Replace(content)
	end := strings.TrimRightFunc(content, isSpace)
	n := prefixAtEnd(end, m.controls)
	if n == 0 {
		return content
	}
	head, ending := end[:len(end)-n], end[len(end)-n:]
	return head + m.mark(ending) + content[len(end):]
}

// restore puts the texts back in a rendered prompt, and lists where they are.
func (m *marks) restore(rendered string) (text string, plain []tokenizer.Span) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(rendered, m.word)
		b.WriteString(before)
		if !found {
			return b.String(), plain
		}
		digits, rest, ended := strings.Cut(after, "x")
		i, err := strconv.Atoi(digits)
		if !ended || err != nil || i < 0 || i >= len(m.texts) {
			rendered = after // the template broke the mark; what is left of it is text
			continue
		}
		plain = appendSpan(plain, b.Len(), b.Len()+len(m.texts[i]))
		b.WriteString(m.texts[i])
		rendered = rest
	}
}

// appendSpan joins spans that touch: a run of control tokens is one span.
func appendSpan(spans []tokenizer.Span, start, end int) []tokenizer.Span {
	if n := len(spans); n > 0 && spans[n-1].End == start {
		spans[n-1].End = end
		return spans
	}
	return append(spans, tokenizer.Span{Start: start, End: end})
}

// isSpace is what Python's strip, and so a template's trim, takes for space.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
