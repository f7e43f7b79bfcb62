package tokenizer

import (
	"strings"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// Decode is the text of ids from its beginning, always valid UTF-8. Ids outside
// the vocabulary add nothing. With skipSpecial, special tokens are left out.
func (t *Tokenizer) Decode(ids []terse.Token, skipSpecial bool) string {
	s := t.NewStream(skipSpecial)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(s.Push(id))
	}
	b.WriteString(s.Flush())
	return b.String()
}

// Stream decodes ids one by one. Its pieces, Flush included, concatenate to
// what Decode gives for all ids. It is not safe for concurrent use.
type Stream struct {
	t     *Tokenizer
	skip  bool
	strip int    // leading spaces still to remove
	hold  []byte // the beginning of a character
}

// NewStream decodes a text from its beginning, as Decode does.
func (t *Tokenizer) NewStream(skipSpecial bool) *Stream {
	return &Stream{t: t, skip: skipSpecial, strip: t.stripStart}
}

// NewContinuation decodes ids that follow a prompt: the first one keeps its
// leading space, which for SentencePiece models is the space between the words.
func (t *Tokenizer) NewContinuation(skipSpecial bool) *Stream {
	return &Stream{t: t, skip: skipSpecial}
}

// Push adds a token and returns the text that is now certain, perhaps "".
func (s *Stream) Push(id terse.Token) string {
	if s.skip && s.t.IsSpecial(id) || !s.t.vocab.has(id) {
		return ""
	}
	text := s.t.vocab.pieces[id]
	for s.strip > 0 && text != "" {
		if text[0] != ' ' {
			s.strip = 0
			break
		}
		text, s.strip = text[1:], s.strip-1
	}
	if len(s.hold) == 0 && utf8.ValidString(text) {
		return text
	}
	s.hold = append(s.hold, text...)
	return s.take(false)
}

// Flush ends the stream: an unfinished character becomes U+FFFD.
func (s *Stream) Flush() string { return s.take(true) }

// take removes whole characters from hold; with all set, everything.
func (s *Stream) take(all bool) string {
	var b strings.Builder
	buf := s.hold
	for len(buf) > 0 {
		if !all && !utf8.FullRune(buf) {
			break
		}
		r, n := utf8.DecodeRune(buf)
		if r == utf8.RuneError && n == 1 {
			n = invalidPart(buf)
		}
		b.WriteRune(r)
		buf = buf[n:]
	}
	s.hold = append(s.hold[:0], buf...)
	return b.String()
}

// invalidPart is the length of the maximal invalid part at the head of buf: as
// many bytes as could have begun a character, at least one.
func invalidPart(buf []byte) int {
	n := 1
	for n < len(buf) && n < utf8.UTFMax && !utf8.FullRune(buf[:n]) && !startsRune(buf[:n+1]) {
		n++
	}
	return n
}

// startsRune reports whether the last byte of b cannot belong to the character
// that b begins.
func startsRune(b []byte) bool {
	r, n := utf8.DecodeRune(b)
	return utf8.FullRune(b) && r == utf8.RuneError && n == 1
}

// lossy is s with each maximal invalid part as U+FFFD.
func lossy(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	st := Stream{hold: []byte(s)}
	return st.take(true)
}
