package minijinja

import (
	"slices"
	"strings"
)

// splitArgs reads sep and maxsplit; none says that sep is None: split at white space.
func splitArgs(a args) (sep string, none bool, limit int64, err error) {
	got, err := a.bind(0, "sep", "maxsplit")
	if err != nil {
		return "", false, 0, err
	}
	if limit, err = intArg(a.name, got[1], -1); err != nil {
		return "", false, 0, err
	}
	if !isSet(got[0]) || got[0] == nil {
		return "", true, limit, nil
	}
	sep, err = strArg(a.name, got[0], "")
	if err == nil && sep == "" {
		err = errorf("%s: empty separator", a.name)
	}
	return sep, false, limit, err
}

func methodSplit(s *state, v string, a args) (Value, error) {
	sep, none, limit, err := splitArgs(a)
	if err != nil {
		return nil, err
	}
	if none {
		return s.collect(func(yield func(string)) { splitSpace(v, limit, yield) })
	}
	return s.collect(func(yield func(string)) {
		for n := int64(0); limit < 0 || n < limit; n++ {
			before, after, found := strings.Cut(v, sep)
			if !found {
				break
			}
			yield(before)
			v = after
		}
		yield(v)
	})
}

func splitSpace(v string, limit int64, yield func(string)) {
	for n := int64(0); ; n++ {
		v = strings.TrimLeftFunc(v, isSpace)
		if v == "" {
			return
		}
		end := strings.IndexFunc(v, isSpace)
		if end < 0 || limit >= 0 && n >= limit {
			yield(v)
			return
		}
		yield(v[:end])
		v = v[end:]
	}
}

func methodRSplit(s *state, v string, a args) (Value, error) {
	sep, none, limit, err := splitArgs(a)
	if err != nil {
		return nil, err
	}
	out, err := s.collect(func(yield func(string)) {
		if none {
			rsplitSpace(v, limit, yield)
			return
		}
		for n := int64(0); limit < 0 || n < limit; n++ {
			at := strings.LastIndex(v, sep)
			if at < 0 {
				break
			}
			yield(v[at+len(sep):])
			v = v[:at]
		}
		yield(v)
	})
	if err != nil {
		return nil, err
	}
	slices.Reverse(out.(*List).items) // not yet visible to the template
	return out, nil
}

func rsplitSpace(v string, limit int64, yield func(string)) {
	for n := int64(0); ; n++ {
		v = strings.TrimRightFunc(v, isSpace)
		if v == "" {
			return
		}
		words := strings.LastIndexFunc(v, isSpace)
		if words < 0 || limit >= 0 && n >= limit {
			yield(v)
			return
		}
		start := words + runeSize(v[words:])
		yield(v[start:])
		v = v[:start]
	}
}

// collect gathers strings into a list under the limits: parts share the
// original's bytes, so only the list itself is charged.
func (s *state) collect(each func(yield func(string))) (Value, error) {
	var items []Value
	var err error
	each(func(part string) {
		if err == nil {
			err = s.alloc(2 * wordSize)
		}
		if err == nil {
			items = append(items, part)
		}
	})
	if err != nil {
		return nil, err
	}
	return s.list(items)
}

func methodSplitLines(s *state, v string, a args) (Value, error) {
	got, err := a.bind(0, "keepends")
	if err != nil {
		return nil, err
	}
	keep := flagArg(got[0], false)
	return s.collect(func(yield func(string)) { splitLines(v, keep, yield) })
}

func isLineEnd(r rune) bool {
	return r >= '\n' && r <= '\r' || r >= 0x1c && r <= 0x1e || r == 0x85 || r == 0x2028 || r == 0x2029
}

func splitLines(v string, keep bool, yield func(string)) {
	for v != "" {
		end := strings.IndexFunc(v, isLineEnd)
		if end < 0 {
			yield(v)
			return
		}
		next := end + runeSize(v[end:])
		if strings.HasPrefix(v[end:], "\r\n") {
			next = end + 2
		}
		if keep {
			yield(v[:next])
		} else {
			yield(v[:end])
		}
		v = v[next:]
	}
}

func methodPartition(s *state, v string, a args) (Value, error) {
	sep, err := partitionArg(a)
	if err != nil {
		return nil, err
	}
	before, after, found := strings.Cut(v, sep)
	if !found {
		return s.sequence([]Value{v, "", ""}, true)
	}
	return s.sequence([]Value{before, sep, after}, true)
}

func methodRPartition(s *state, v string, a args) (Value, error) {
	sep, err := partitionArg(a)
	if err != nil {
		return nil, err
	}
	at := strings.LastIndex(v, sep)
	if at < 0 {
		return s.sequence([]Value{"", "", v}, true)
	}
	return s.sequence([]Value{v[:at], sep, v[at+len(sep):]}, true)
}

func partitionArg(a args) (string, error) {
	got, err := a.bind(1, "sep")
	if err != nil {
		return "", err
	}
	sep, err := strArg(a.name, got[0], "")
	if err == nil && sep == "" {
		err = errorf("%s: empty separator", a.name)
	}
	return sep, err
}
