package minijinja

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// str is Python's str(v).
func (s *state) str(v Value) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case Undefined:
		return "", nil
	}
	return s.repr(v)
}

func (s *state) repr(v Value) (string, error) {
	t := &text{s: s}
	writeRepr(t, v)
	return t.String()
}

func writeRepr(t *text, v Value) {
	switch v := v.(type) {
	case nil:
		t.add("None")
	case Undefined:
		t.add("Undefined")
	case bool:
		t.add(map[bool]string{true: "True", false: "False"}[v])
	case int64:
		t.add(strconv.FormatInt(v, 10))
	case float64:
		t.add(floatRepr(v))
	case string:
		writeQuoted(t, v)
	case *List:
		writeListRepr(t, v)
	case *Dict:
		writeDictRepr(t, v)
	case *Func:
		t.add("<function " + v.name + ">")
	default:
		t.add("<" + typeName(v) + ">")
	}
}

func writeListRepr(t *text, l *List) {
	open, end := "[", "]"
	if l.tuple {
		open, end = "(", ")"
		if len(l.items) == 1 {
			end = ",)"
		}
	}
	t.add(open)
	for i, item := range l.items {
		if t.err != nil {
			return
		}
		if i > 0 {
			t.add(", ")
		}
		writeRepr(t, item)
	}
	t.add(end)
}

func writeDictRepr(t *text, d *Dict) {
	t.add("{")
	for i, k := range d.keys {
		if t.err != nil {
			return
		}
		if i > 0 {
			t.add(", ")
		}
		writeRepr(t, k)
		t.add(": ")
		writeRepr(t, d.vals[i])
	}
	t.add("}")
}

func writeQuoted(t *text, v string) {
	quote := "'"
	if strings.Contains(v, "'") && !strings.Contains(v, `"`) {
		quote = `"`
	}
	t.add(quote)
	plain := 0
	for i, r := range v {
		esc := reprEscape(r, quote)
		if esc == "" {
			continue
		}
		t.add(v[plain:i])
		t.add(esc)
		plain = i + utf8.RuneLen(r)
		if t.err != nil {
			return
		}
	}
	t.add(v[plain:])
	t.add(quote)
}

func reprEscape(r rune, quote string) string {
	switch {
	case r == '\\' || string(r) == quote:
		return `\` + string(r)
	case r == '\n':
		return `\n`
	case r == '\r':
		return `\r`
	case r == '\t':
		return `\t`
	case unicode.IsPrint(r) || r == utf8.RuneError:
		return ""
	case r < 0x100:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// floatRepr is Python's repr: the shortest digits that read back, an exponent
// from 1e16 on and below 1e-4.
func floatRepr(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	out := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(out, ".") {
		out += ".0"
	}
	return out
}
