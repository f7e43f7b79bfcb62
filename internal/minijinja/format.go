package minijinja

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

func runeSize(v string) int {
	_, size := utf8.DecodeRuneInString(v)
	return size
}

// percentFormat is Python's "..." % values for %s %r %d %i %f %x %% with
// flags, width and precision.
func (s *state) percentFormat(format string, v Value) (Value, error) {
	queue := []Value{v}
	if l, ok := v.(*List); ok && l.tuple {
		queue = l.items
	}
	t := &text{s: s}
	for {
		before, after, found := strings.Cut(format, "%")
		t.add(before)
		if !found {
			break
		}
		spec, rest, err := cutSpec(after)
		if err != nil {
			return nil, err
		}
		format = rest
		if spec.verb == '%' {
			t.add("%")
			continue
		}
		if len(queue) == 0 {
			return nil, errorf("not enough arguments for format string")
		}
		if err := s.formatOne(t, spec, queue[0]); err != nil {
			return nil, err
		}
		queue = queue[1:]
	}
	if _, isDict := v.(*Dict); len(queue) > 0 && !isDict {
		return nil, errorf("not all arguments converted during string formatting")
	}
	return t.value()
}

// formatSpec is one conversion: what stands between % and the verb is Go's
// syntax too.
type formatSpec struct {
	flags string
	verb  byte
}

// maxFormatWidth keeps "%1000000000d" from being an allocation.
const maxFormatWidth = 1000

func cutSpec(v string) (formatSpec, string, error) {
	end := strings.IndexFunc(v, func(r rune) bool { return !strings.ContainsRune("-+ 0123456789.#", r) })
	if end < 0 {
		return formatSpec{}, "", errorf("incomplete format")
	}
	spec := formatSpec{flags: v[:end], verb: v[end]}
	for _, part := range strings.FieldsFunc(spec.flags, func(r rune) bool { return r < '0' || r > '9' }) {
		if n, err := strconv.Atoi(part); err != nil || n > maxFormatWidth {
			return spec, "", limitf("format width %s is too large: at most %d", part, maxFormatWidth)
		}
	}
	return spec, v[end+1:], nil
}

func (s *state) formatOne(t *text, spec formatSpec, v Value) error {
	switch spec.verb {
	case 's', 'r':
		out, err := s.str(v)
		if spec.verb == 'r' {
			out, err = s.repr(v)
		}
		if err != nil {
			return err
		}
		if spec.flags == "" {
			t.add(out)
			return t.err
		}
		if err := s.alloc(int64(len(out))); err != nil {
			return err
		}
		t.add(fmt.Sprintf("%"+spec.flags+"s", out))
		return t.err
	}
	n, ok := asNumber(v)
	if !ok {
		return errorf("%%%c format: a number is required, not %s", spec.verb, typeName(v))
	}
	switch spec.verb {
	case 'd', 'i':
		if !n.isInt {
			n.i = int64(n.f)
		}
		t.add(fmt.Sprintf("%"+spec.flags+"d", n.i))
	case 'x', 'X', 'o':
		if !n.isInt {
			return errorf("%%%c format: an integer is required", spec.verb)
		}
		t.add(fmt.Sprintf("%"+spec.flags+string(spec.verb), n.i))
	case 'f', 'F', 'e', 'g':
		t.add(fmt.Sprintf("%"+spec.flags+string(spec.verb), n.f))
	default:
		return errorf("unsupported format character '%c'", spec.verb)
	}
	return t.err
}

// methodFormat is str.format with {}, {0}, {name} and without format
// specifications or attribute access, which the sandbox has no use for.
func methodFormat(s *state, v string, a args) (Value, error) {
	t := &text{s: s}
	for next := 0; v != ""; {
		at := strings.IndexAny(v, "{}")
		if at < 0 {
			t.add(v)
			break
		}
		t.add(v[:at])
		if at+1 < len(v) && v[at+1] == v[at] { // {{ and }}
			t.add(v[at : at+1])
			v = v[at+2:]
			continue
		}
		field, rest, found := strings.Cut(v[at+1:], "}")
		if v[at] == '}' || !found {
			return nil, errorf("str.format: single '%c' in format string", v[at])
		}
		v = rest
		arg, err := formatField(field, &next, a)
		if err != nil {
			return nil, err
		}
		out, err := s.str(arg)
		if err != nil {
			return nil, err
		}
		t.add(out)
	}
	return t.value()
}

func formatField(field string, next *int, a args) (Value, error) {
	if field == "" {
		field = strconv.Itoa(*next)
		*next++
	}
	if i, err := strconv.Atoi(field); err == nil {
		if i < 0 || i >= len(a.pos) {
			return nil, errorf("str.format: no argument %d", i)
		}
		return a.pos[i], nil
	}
	for _, kw := range a.kw {
		if kw.name == field {
			return kw.value, nil
		}
	}
	return nil, errorf("str.format: cannot fill '{%s}': only {}, {0} and {name} are supported", field)
}
