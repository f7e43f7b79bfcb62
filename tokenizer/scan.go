package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Split patterns that most models share, scanned by hand: 20 times faster than
// a regular expression engine, and linear for any text.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternCL100K = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	patternTiktok = `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
)

// knownPattern is the scanner of a pattern, or nil.
func knownPattern(pattern string) matcher {
	switch pattern {
	case patternGPT2:
		return segments(gpt2End)
	case patternLlama3, patternCL100K, patternTiktok:
		return segments(func(s string, i int) int { return llama3End(s, i, 3) })
	case patternQwen2:
		return segments(func(s string, i int) int { return llama3End(s, i, 1) })
	case `\s+$`:
		return trailingSpace
	}
	return nil
}

// segments makes a matcher of a scanner that covers the text without gaps: end
// gives the end of the match that begins at s[i].
func segments(end func(s string, i int) int) matcher {
	return func(s string, yield func(start, end int)) error {
		for i := 0; i < len(s); {
			j := end(s, i)
			yield(i, j)
			i = j
		}
		return nil
	}
}

// class is a set of character properties.
type class uint8

const (
	letter  class = 1 << iota // \p{L}
	number                    // \p{N}
	space                     // \s
	newline                   // [\r\n]
)

var asciiClass = func() (t [utf8.RuneSelf]class) {
	for r := range t {
		t[r] = slowClass(rune(r))
	}
	return t
}()

func slowClass(r rune) class {
	switch {
	case r == '\r' || r == '\n':
		return space | newline
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return 0
}

// classAt is the class and length of the character at s[i]; i < len(s).
func classAt(s string, i int) (class, int) {
	if c := s[i]; c < utf8.RuneSelf {
		return asciiClass[c], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return slowClass(r), n
}

// runEnd is the end of the run from s[i] whose classes are all (want) or none
// (!want) of mask, at most limit characters long.
func runEnd(s string, i int, mask class, want bool, limit int) int {
	for ; i < len(s) && limit > 0; limit-- {
		c, n := classAt(s, i)
		if (c&mask != 0) != want {
			break
		}
		i += n
	}
	return i
}

const unlimited = int(^uint(0) >> 1)

// gpt2End scans patternGPT2.
func gpt2End(s string, i int) int {
	if n := contraction(s[i:], false); n > 0 {
		return i + n
	}
	j := i
	if s[j] == ' ' && j+1 < len(s) {
		j++
	}
	switch c, _ := classAt(s, j); {
	case c&letter != 0:
		return runEnd(s, j, letter, true, unlimited)
	case c&number != 0:
		return runEnd(s, j, number, true, unlimited)
	case c&space == 0:
		return runEnd(s, j, letter|number|space, false, unlimited)
	}
	end, before := spaces(s, i)
	return spaceEnd(s, end, before, i)
}

// llama3End scans patternLlama3, with digits numbers to a piece.
func llama3End(s string, i, digits int) int {
	if n := contraction(s[i:], true); n > 0 {
		return i + n
	}
	c, n := classAt(s, i)
	switch {
	case c&letter != 0:
		return runEnd(s, i, letter, true, unlimited)
	case c&number != 0:
		return runEnd(s, i, number, true, digits)
	case c&newline == 0 && i+n < len(s):
		if next, _ := classAt(s, i+n); next&letter != 0 {
			return runEnd(s, i+n, letter, true, unlimited)
		}
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	if end := runEnd(s, j, letter|number|space, false, unlimited); end > j {
		return runEnd(s, end, newline, true, unlimited)
	}
	end, before := spaces(s, i)
	if at := strings.LastIndexAny(s[i:end], "\r\n"); at >= 0 {
		return i + at + 1
	}
	return spaceEnd(s, end, before, i)
}

// spaces is the end of the run of white space at s[i], and where its last
// character begins.
func spaces(s string, i int) (end, last int) {
	end, last = i, i
	for end < len(s) {
		c, n := classAt(s, end)
		if c&space == 0 {
			break
		}
		last, end = end, end+n
	}
	return end, last
}

// spaceEnd is \s+(?!\S)|\s+ on the run [i, end): all of it at the end of the
// text, else all but its last character, unless that is the only one.
func spaceEnd(s string, end, last, i int) int {
	if end == len(s) || last == i {
		return end
	}
	return last
}

// contraction is the length of 's 't 're 've 'm 'll 'd at the head of s, or 0.
// Folding case takes ſ for s, as Unicode does.
func contraction(s string, fold bool) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	a, b := s[1], byte(0)
	if len(s) > 2 {
		b = s[2]
	}
	if fold {
		if a == "ſ"[0] && b == "ſ"[1] {
			return 1 + len("ſ")
		}
		a, b = a|0x20, b|0x20
	}
	switch a {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if b == 'e' {
			return 3
		}
	case 'l':
		if b == 'l' {
			return 3
		}
	}
	return 0
}

// trailingSpace is \s+$: white space up to the end of a line.
func trailingSpace(s string, yield func(start, end int)) error {
	for i := 0; i < len(s); {
		c, n := classAt(s, i)
		if c&space == 0 {
			i += n
			continue
		}
		end, _ := spaces(s, i)
		match := end
		if end < len(s) {
			match = i + max(0, strings.LastIndexByte(s[i:end], '\n'))
		}
		if match > i {
			yield(i, match)
		}
		// What is left of the run begins with its last line break and ends
		// before the next line's text: no further line end in it.
		i = end
	}
	return nil
}
