package chat

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/terse-llm/terse/internal/minijinja"
)

// maxTimeFormat bounds what strftime_now is asked to write: dates are short.
const maxTimeFormat = 256

func strftimeNow(now func() time.Time, pos []minijinja.Value) (minijinja.Value, error) {
	if len(pos) != 1 {
		return nil, errors.New("strftime_now takes one format")
	}
	format, ok := pos[0].(string)
	if !ok {
		return nil, errors.New("strftime_now takes a string")
	}
	if len(format) > maxTimeFormat {
		return nil, fmt.Errorf("strftime_now: the format is longer than %d bytes", maxTimeFormat)
	}
	return strftime(now(), format)
}

// layout is one strftime conversion in Go's terms, "" where unknown. %-d and
// its like are glibc's way to leave a zero out, which templates use.
func layout(conversion string) string {
	switch conversion {
	case "a":
		return "Mon"
	case "A":
		return "Monday"
	case "b", "h":
		return "Jan"
	case "B":
		return "January"
	case "c":
		return "Mon Jan _2 15:04:05 2006"
	case "d":
		return "02"
	case "-d":
		return "2"
	case "D", "x":
		return "01/02/06"
	case "e":
		return "_2"
	case "F":
		return "2006-01-02"
	case "H":
		return "15"
	case "I":
		return "03"
	case "-I":
		return "3"
	case "j":
		return "002"
	case "m":
		return "01"
	case "-m":
		return "1"
	case "M":
		return "04"
	case "p":
		return "PM"
	case "S":
		return "05"
	case "T", "X":
		return "15:04:05"
	case "y":
		return "06"
	case "Y":
		return "2006"
	case "z":
		return "-0700"
	case "Z":
		return "MST"
	}
	return ""
}

// strftime writes t as Python's strftime does in the C locale.
func strftime(t time.Time, format string) (minijinja.Value, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(format, "%")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		n := 1
		if strings.HasPrefix(after, "-") {
			n = 2
		}
		if len(after) < n {
			return nil, errors.New("strftime_now: the format ends in %")
		}
		conversion := after[:n]
		format = after[n:]
		if conversion == "%" {
			b.WriteByte('%')
			continue
		}
		l := layout(conversion)
		if l == "" {
			return nil, fmt.Errorf("strftime_now: unsupported conversion %%%s", conversion)
		}
		b.WriteString(t.Format(l))
	}
}
