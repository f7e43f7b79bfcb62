package tokenizer

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// Patterns come with the model and are not trusted: one search may take
// searchTimeout, all the searches of one piece pieceTimeout, and backtracking
// backtrackSlots of memory.
const (
	searchTimeout  = time.Second
	pieceTimeout   = 10 * time.Second
	backtrackSlots = 4 << 20
)

// compilePattern makes a matcher of a split pattern: by hand where its shape is
// known, else by a backtracking engine.
func compilePattern(pattern string) (matcher, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("the split pattern is %d bytes long: the limit is %d", len(pattern), maxPattern)
	}
	if m := knownPattern(pattern); m != nil {
		return m, nil
	}
	if p, ok := parseRunPattern(pattern); ok {
		return p.matches, nil
	}
	// The patterns are written for Oniguruma. What its syntax reads differently
	// from ours, without either complaining, is refused.
	for _, odd := range []string{"[[:", "&&", "-[", `\h`, `\H`, "(?m"} {
		if strings.Contains(pattern, odd) {
			return nil, fmt.Errorf("the split pattern uses %s, which is not supported: %.120q", odd, pattern)
		}
	}
	// In Oniguruma ^ and $ are always those of lines.
	re, err := regexp2.Compile(pattern, regexp2.Multiline, regexp2.OptionMaxBacktrackingStackSize(backtrackSlots))
	if err != nil {
		return nil, fmt.Errorf("cannot compile the split pattern %.120q: %w", pattern, err)
	}
	re.MatchTimeout = searchTimeout
	return regexMatcher(re), nil
}

var errSlowPattern = errors.New("the model's split pattern takes too long on this text")

func regexMatcher(re *regexp2.Regexp) matcher {
	return func(s string, yield func(start, end int)) error {
		text := []rune(s)
		deadline := time.Now().Add(pieceTimeout)
		at, offset := 0, 0 // in runes and in bytes
		to := func(n int) int {
			for ; at < n; at++ {
				offset += utf8.RuneLen(text[at])
			}
			return offset
		}
		slow := false
		err := re.FindRunesMatches(text, 0, func(m regexp2.MatchView) bool {
			start, n, _ := m.GroupRange(0)
			if n > 0 {
				from := to(start)
				yield(from, to(start+n))
			}
			slow = time.Now().After(deadline)
			return !slow
		})
		switch {
		case slow:
			return errSlowPattern
		case err != nil:
			return fmt.Errorf("%w: %w", errSlowPattern, err)
		}
		return nil
	}
}
