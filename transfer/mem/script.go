package mem

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Script is a list of faults; the package comment says what it can say.
type Script []Rule

// Rule is one fault at one place of a stream.
type Rule struct {
	Up     bool // from the dialer, else towards it
	Conn   int  // -1 = every one
	Do     Action
	Frame  int   // -1 = At is a byte of the stream, else of this frame
	At     int64 // -1 = the action's default
	Wait   time.Duration
	source string
}

// Action is a kind of fault.
type Action string

// The faults that scripts know.
const (
	Drop      Action = "drop"
	Delay     Action = "delay"
	Reorder   Action = "reorder"
	Duplicate Action = "duplicate"
	Truncate  Action = "truncate"
	Corrupt   Action = "corrupt"
	HalfClose Action = "half-close"
	Stall     Action = "stall"
	Kill      Action = "kill"
)

// framesOnly reports whether an action needs a whole frame.
func (a Action) framesOnly() bool { return a == Reorder || a == Duplicate || a == Truncate }

func (a Action) known() bool {
	switch a {
	case Drop, Delay, Reorder, Duplicate, Truncate, Corrupt, HalfClose, Stall, Kill:
		return true
	}
	return false
}

// Parse reads a script.
func Parse(text string) (Script, error) {
	var s Script
	for line := range strings.SplitSeq(strings.ReplaceAll(text, ";", "\n"), "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		r, err := parseRule(strings.Fields(line))
		if err != nil {
			return nil, fmt.Errorf("cannot read fault %q: %w", line, err)
		}
		r.source = line
		s = append(s, r)
	}
	return s, nil
}

func parseRule(words []string) (Rule, error) {
	r := Rule{Conn: -1, Frame: -1, At: -1}
	next := func() (w string) {
		if len(words) > 0 {
			w, words = words[0], words[1:]
		}
		return w
	}
	switch dir := next(); dir {
	case "up", "down":
		r.Up = dir == "up"
	default:
		return r, fmt.Errorf("want up or down first, not %q", dir)
	}
	word := next()
	if word == "conn" {
		n, err := strconv.Atoi(next())
		if err != nil || n < 0 {
			return r, errors.New("conn wants a number")
		}
		r.Conn, word = n, next()
	}
	if r.Do = Action(word); !r.Do.known() {
		return r, fmt.Errorf("unknown action %q", word)
	}
	place, number := next(), next()
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 {
		return r, fmt.Errorf("bad place %q %q", place, number)
	}
	switch {
	case place == "frame":
		r.Frame = int(n)
	case place == "byte" && !r.Do.framesOnly():
		r.At = n
	default:
		return r, fmt.Errorf("%s wants frame N (or byte N where that makes sense), not %q", r.Do, place)
	}
	return r, r.parseRest(words)
}

// parseRest reads +OFFSET and DURATION.
func (r *Rule) parseRest(words []string) error {
	var err error
	if len(words) > 0 && strings.HasPrefix(words[0], "+") && r.Frame >= 0 {
		if r.At, err = strconv.ParseInt(words[0][1:], 10, 64); err != nil || r.At < 0 {
			return fmt.Errorf("bad offset %q", words[0])
		}
		words = words[1:]
	}
	if r.Do == Delay {
		if len(words) == 0 {
			return errors.New("delay wants a time")
		}
		if r.Wait, err = time.ParseDuration(words[0]); err != nil {
			return fmt.Errorf("bad delay %q", words[0])
		}
		words = words[1:]
	}
	if len(words) > 0 {
		return fmt.Errorf("what does %q mean there?", words[0])
	}
	return nil
}

// String is the rule as it was written.
func (r Rule) String() string { return r.source }

// hit is where a frame of size bytes, number n from byte at of its stream, is
// struck.
func (r Rule) hit(n int, at, size int64) (off int64, ok bool) {
	if r.Frame < 0 {
		off = r.At - at
		return off, off >= 0 && off < size
	}
	off = r.At
	if off < 0 {
		off = 0
		if r.Do == Corrupt || r.Do == Truncate {
			off = size / 2
		}
	}
	return min(off, size-1), r.Frame == n
}
