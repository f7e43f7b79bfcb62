package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// runPattern is the shape that most smaller split patterns have: perhaps one
// lead character, then between lo and hi characters of one class. It covers
// [\r\n], \p{N}{1,3}, \s?\p{L}+, [0-9][0-9][0-9] and the long letter lists of
// DeepSeek.
type runPattern struct {
	lead   *runeSet
	set    runeSet
	lo, hi int
}

// runeSet is a set of characters; ascii answers for the low ones.
type runeSet struct {
	ascii  [utf8.RuneSelf]bool
	tables []*unicode.RangeTable
	ranges [][2]rune
	negate bool
}

func (s *runeSet) has(r rune) bool {
	if r < utf8.RuneSelf {
		return s.ascii[r]
	}
	return s.slow(r)
}

func (s *runeSet) slow(r rune) bool {
	for _, lohi := range s.ranges {
		if lohi[0] <= r && r <= lohi[1] {
			return !s.negate
		}
	}
	return unicode.In(r, s.tables...) != s.negate
}

// matches finds all matches in s.
func (p *runPattern) matches(s string, yield func(start, end int)) error {
	for i := 0; i < len(s); {
		end := p.matchAt(s, i)
		if end < 0 {
			_, n := utf8.DecodeRuneInString(s[i:])
			i += n
			continue
		}
		yield(i, end)
		i = end
	}
	return nil
}

func (p *runPattern) matchAt(s string, i int) int {
	if p.lead != nil {
		if r, n := utf8.DecodeRuneInString(s[i:]); p.lead.has(r) {
			if end := p.run(s, i+n); end >= 0 {
				return end
			}
		}
	}
	return p.run(s, i)
}

func (p *runPattern) run(s string, i int) int {
	count := 0
	for i < len(s) && count < p.hi {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !p.set.has(r) {
			break
		}
		i += n
		count++
	}
	if count < p.lo {
		return -1
	}
	return i
}

// parseRunPattern reads a pattern of this shape; ok is false for any other.
func parseRunPattern(pattern string) (p *runPattern, ok bool) {
	r := patternReader{rest: pattern}
	first, text, ok := r.set()
	if !ok {
		return nil, false
	}
	p = &runPattern{set: first}
	p.lo, p.hi, ok = r.repeat()
	if ok && p.lo == 0 && p.hi == 1 && r.rest != "" {
		p.lead = &first
		if p.set, text, ok = r.set(); ok {
			p.lo, p.hi, ok = r.repeat()
		}
	}
	for ok && p.lo == p.hi && strings.HasPrefix(r.rest, text) {
		r.rest = r.rest[len(text):]
		p.lo, p.hi = p.lo+1, p.hi+1
	}
	return p, ok && r.rest == "" && p.lo > 0
}

// patternReader takes a pattern apart from the left.
type patternReader struct{ rest string }

// set reads one class or one plain character, and returns its source too.
func (r *patternReader) set() (s runeSet, text string, ok bool) {
	before := r.rest
	if strings.HasPrefix(r.rest, "[") {
		r.rest = r.rest[1:]
		ok = r.bracket(&s)
	} else if r.rest != "" && !strings.ContainsRune(".^$|()*+?{}]", rune(r.rest[0])) {
		ok = r.item(&s)
	}
	for c := range s.ascii {
		s.ascii[c] = s.slow(rune(c))
	}
	return s, before[:len(before)-len(r.rest)], ok
}

// bracket reads the inside of [...].
func (r *patternReader) bracket(s *runeSet) bool {
	if strings.HasPrefix(r.rest, "^") {
		s.negate, r.rest = true, r.rest[1:]
	}
	for first := true; r.rest != ""; first = false {
		if r.rest[0] == ']' && !first {
			r.rest = r.rest[1:]
			return true
		}
		// Nested classes and intersections are for the real engine.
		if r.rest[0] == '[' || r.rest[0] == ']' || strings.HasPrefix(r.rest, "&&") || !r.item(s) {
			return false
		}
	}
	return false
}

// item reads a class escape, a character or a range a-b into s.
func (r *patternReader) item(s *runeSet) bool {
	if table, n := classEscape(r.rest); table != nil {
		s.tables, r.rest = append(s.tables, table), r.rest[n:]
		return true
	}
	lo, ok := r.char()
	if !ok {
		return false
	}
	hi := lo
	if len(r.rest) > 1 && r.rest[0] == '-' && r.rest[1] != ']' {
		r.rest = r.rest[1:]
		if hi, ok = r.char(); !ok || hi < lo {
			return false
		}
	}
	s.ranges = append(s.ranges, [2]rune{lo, hi})
	return true
}

// char reads one character, escaped or not.
func (r *patternReader) char() (rune, bool) {
	c, n := utf8.DecodeRuneInString(r.rest)
	if c != '\\' {
		r.rest = r.rest[n:]
		return c, n > 0
	}
	if len(r.rest) < 2 {
		return 0, false
	}
	c = rune(r.rest[1])
	r.rest = r.rest[2:]
	switch c {
	case 'r':
		return '\r', true
	case 'n':
		return '\n', true
	case 't':
		return '\t', true
	}
	return c, c < utf8.RuneSelf && isPunctuation(c)
}

// classEscape is the table and length of a leading \s, \p{L}, \p{N} or \p{P}.
func classEscape(s string) (*unicode.RangeTable, int) {
	switch {
	case strings.HasPrefix(s, `\s`):
		return unicode.White_Space, 2
	case strings.HasPrefix(s, `\p{L}`):
		return unicode.L, 5
	case strings.HasPrefix(s, `\p{N}`):
		return unicode.N, 5
	case strings.HasPrefix(s, `\p{P}`):
		return unicode.P, 5
	case strings.HasPrefix(s, `\p{M}`):
		return unicode.M, 5
	}
	return nil, 0
}

// repeat reads a quantifier; none means exactly once.
func (r *patternReader) repeat() (lo, hi int, ok bool) {
	for _, q := range []struct {
		text   string
		lo, hi int
	}{{"+", 1, unlimited}, {"?", 0, 1}, {"{1,3}", 1, 3}, {"{1,2}", 1, 2}, {"{3}", 3, 3}, {"{1}", 1, 1}} {
		if strings.HasPrefix(r.rest, q.text) {
			r.rest = r.rest[len(q.text):]
			// A lazy or possessive mark is for the real engine.
			return q.lo, q.hi, !strings.HasPrefix(r.rest, "+") && !strings.HasPrefix(r.rest, "?")
		}
	}
	return 1, 1, !strings.HasPrefix(r.rest, "*") && !strings.HasPrefix(r.rest, "{")
}
