package minijinja

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// isSpace is Python's str.isspace for one character.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

type stringFunc func(s *state, v string, a args) (Value, error)

// stringMethod is v.name, or nil where str has no such method.
func stringMethod(v, name string) Value {
	f := lookupStringMethod(name)
	if f == nil {
		return nil
	}
	return &Func{name: "str." + name, call: func(s *state, a args) (Value, error) {
		if err := s.spend(1 + int64(len(v))/bytesPerStep); err != nil {
			return nil, err
		}
		return f(s, v, a)
	}}
}

func lookupStringMethod(name string) stringFunc {
	if f := lookupStringEdit(name); f != nil {
		return f
	}
	switch name {
	case "split":
		return methodSplit
	case "rsplit":
		return methodRSplit
	case "splitlines":
		return methodSplitLines
	case "partition":
		return methodPartition
	case "rpartition":
		return methodRPartition
	case "startswith":
		return affixTest(strings.HasPrefix)
	case "endswith":
		return affixTest(strings.HasSuffix)
	case "find", "index":
		return finder(strings.Index, name == "index")
	case "rfind", "rindex":
		return finder(strings.LastIndex, name == "rindex")
	case "count":
		return methodCount
	case "isdigit", "isdecimal", "isnumeric":
		return every(unicode.IsDigit)
	case "isalpha":
		return every(unicode.IsLetter)
	case "isalnum":
		return every(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
	case "isspace":
		return every(isSpace)
	case "isupper":
		return cased(unicode.IsLower)
	case "islower":
		return cased(unicode.IsUpper)
	}
	return nil
}

func lookupStringEdit(name string) stringFunc {
	switch name {
	case "strip":
		return stripper(true, true)
	case "lstrip":
		return stripper(true, false)
	case "rstrip":
		return stripper(false, true)
	case "upper":
		return mapper(strings.ToUpper)
	case "lower", "casefold":
		return mapper(strings.ToLower)
	case "capitalize":
		return mapper(capitalize)
	case "title":
		return mapper(title)
	case "replace":
		return methodReplace
	case "join":
		return methodJoin
	case "format":
		return methodFormat
	case "removeprefix":
		return affixCut(strings.TrimPrefix)
	case "removesuffix":
		return affixCut(strings.TrimSuffix)
	case "ljust":
		return padder(0, 1)
	case "rjust":
		return padder(1, 0)
	case "center":
		return padder(1, 1)
	case "zfill":
		return methodZfill
	}
	return nil
}

func stripper(left, right bool) stringFunc {
	return func(s *state, v string, a args) (Value, error) {
		got, err := a.bind(0, "chars")
		if err != nil {
			return nil, err
		}
		cut := isSpace
		if isSet(got[0]) && got[0] != nil {
			chars, err := strArg(a.name, got[0], "")
			if err != nil {
				return nil, err
			}
			if err := s.spend(int64(len(chars)/bytesPerStep+1) * int64(len(v)/bytesPerStep+1)); err != nil {
				return nil, err
			}
			cut = func(r rune) bool { return strings.ContainsRune(chars, r) }
		}
		if left {
			v = strings.TrimLeftFunc(v, cut)
		}
		if right {
			v = strings.TrimRightFunc(v, cut)
		}
		return v, nil
	}
}

// mapper is a method without arguments whose result may grow at most threefold.
func mapper(f func(string) string) stringFunc {
	return func(s *state, v string, a args) (Value, error) {
		if err := a.none(); err != nil {
			return nil, err
		}
		if err := s.alloc(3 * int64(len(v))); err != nil {
			return nil, err
		}
		return f(v), nil
	}
}

func capitalize(v string) string {
	_, size := utf8.DecodeRuneInString(v)
	return strings.ToTitle(v[:size]) + strings.ToLower(v[size:])
}

// title raises the first letter of each run of letters.
func title(v string) string {
	inWord := false
	return strings.Map(func(r rune) rune {
		letter := unicode.IsLetter(r)
		defer func() { inWord = letter }()
		if letter && !inWord {
			return unicode.ToTitle(r)
		}
		return unicode.ToLower(r)
	}, v)
}

func methodReplace(s *state, v string, a args) (Value, error) {
	got, err := a.bind(2, "old", "new", "count")
	if err != nil {
		return nil, err
	}
	from, err := strArg(a.name, got[0], "")
	if err != nil {
		return nil, err
	}
	to, err := strArg(a.name, got[1], "")
	if err != nil {
		return nil, err
	}
	limit, err := intArg(a.name, got[2], -1)
	if err != nil {
		return nil, err
	}
	return s.replace(v, from, to, limit)
}

func (s *state) replace(v, from, to string, limit int64) (Value, error) {
	n := int64(strings.Count(v, from))
	if limit >= 0 {
		n = min(n, limit)
	}
	if err := s.alloc(int64(len(v))); err != nil {
		return nil, err
	}
	if err := s.allocTimes(int64(len(to)), n); err != nil {
		return nil, err
	}
	return strings.Replace(v, from, to, int(n)), nil
}

func methodJoin(s *state, v string, a args) (Value, error) {
	got, err := a.bind(1, "iterable")
	if err != nil {
		return nil, err
	}
	items, err := s.iterate(got[0])
	if err != nil {
		return nil, err
	}
	t := &text{s: s}
	for i, item := range items {
		part, ok := item.(string)
		if !ok {
			return nil, errorf("str.join: item %d is %s, not str", i, typeName(item))
		}
		if i > 0 {
			t.add(v)
		}
		t.add(part)
		if t.err != nil {
			break
		}
	}
	return t.value()
}

// value is String as a Value.
func (t *text) value() (Value, error) {
	out, err := t.String()
	if err != nil {
		return nil, err
	}
	return out, nil
}

func affixTest(has func(s, affix string) bool) stringFunc {
	return func(s *state, v string, a args) (Value, error) {
		got, err := a.bind(1, "affix", "start", "end")
		if err != nil {
			return nil, err
		}
		if v, err = s.window(v, got[1], got[2]); err != nil {
			return nil, err
		}
		choices := []Value{got[0]}
		if l, ok := got[0].(*List); ok && l.tuple {
			choices = l.items
		}
		for _, c := range choices {
			affix, err := strArg(a.name, c, "")
			if err != nil {
				return nil, err
			}
			if has(v, affix) {
				return true, nil
			}
			if err := s.spend(1 + int64(len(affix))/bytesPerStep); err != nil {
				return nil, err
			}
		}
		return false, nil
	}
}

// window is v[start:end] for methods that take those arguments.
func (s *state) window(v string, start, end Value) (string, error) {
	if !isSet(start) {
		return v, nil
	}
	if !isSet(end) {
		end = nil
	}
	out, err := s.sliceString(v, start, end, nil)
	if err != nil {
		return "", err
	}
	return out.(string), nil
}

func affixCut(cut func(s, affix string) string) stringFunc {
	return func(_ *state, v string, a args) (Value, error) {
		got, err := a.bind(1, "affix")
		if err != nil {
			return nil, err
		}
		affix, err := strArg(a.name, got[0], "")
		if err != nil {
			return nil, err
		}
		return cut(v, affix), nil
	}
}

func finder(index func(s, sub string) int, mustFind bool) stringFunc {
	return func(s *state, v string, a args) (Value, error) {
		got, err := a.bind(1, "sub", "start", "end")
		if err != nil {
			return nil, err
		}
		sub, err := strArg(a.name, got[0], "")
		if err != nil {
			return nil, err
		}
		part, err := s.window(v, got[1], got[2])
		if err != nil {
			return nil, err
		}
		at := index(part, sub)
		if at < 0 {
			if mustFind {
				return nil, errorf("%s: substring not found", a.name)
			}
			return int64(-1), nil
		}
		start, err := s.windowStart(v, got[1])
		return start + int64(utf8.RuneCountInString(part[:at])), err
	}
}

// windowStart is the character where a window that begins at start begins.
func (s *state) windowStart(v string, start Value) (int64, error) {
	if !isSet(start) || start == nil {
		return 0, nil
	}
	i, err := asInt(start)
	if i < 0 {
		i = max(i+int64(utf8.RuneCountInString(v)), 0)
	}
	return i, err
}

func methodCount(s *state, v string, a args) (Value, error) {
	got, err := a.bind(1, "sub", "start", "end")
	if err != nil {
		return nil, err
	}
	sub, err := strArg(a.name, got[0], "")
	if err != nil {
		return nil, err
	}
	part, err := s.window(v, got[1], got[2])
	return int64(strings.Count(part, sub)), err
}

// every is a test of all characters, false for the empty string.
func every(test func(rune) bool) stringFunc {
	return func(_ *state, v string, a args) (Value, error) {
		return v != "" && strings.IndexFunc(v, func(r rune) bool { return !test(r) }) < 0, a.none()
	}
}

// cased is isupper or islower: some letter has case and none has the wrong one.
func cased(wrong func(rune) bool) stringFunc {
	return func(_ *state, v string, a args) (Value, error) {
		hasCase := func(r rune) bool { return unicode.IsUpper(r) || unicode.IsLower(r) }
		return strings.IndexFunc(v, hasCase) >= 0 && strings.IndexFunc(v, wrong) < 0, a.none()
	}
}

// padder pads to a width; left and right are the shares of the padding.
func padder(left, right int) stringFunc {
	return func(s *state, v string, a args) (Value, error) {
		got, err := a.bind(1, "width", "fill")
		if err != nil {
			return nil, err
		}
		width, err := intArg(a.name, got[0], 0)
		if err != nil {
			return nil, err
		}
		fill, err := strArg(a.name, got[1], " ")
		if err != nil {
			return nil, err
		}
		if utf8.RuneCountInString(fill) != 1 {
			return nil, errorf("%s: the fill must be one character", a.name)
		}
		return s.pad(v, fill, width, left, right)
	}
}

func (s *state) pad(v, fill string, width int64, left, right int) (Value, error) {
	missing := width - int64(utf8.RuneCountInString(v))
	if missing <= 0 {
		return v, nil
	}
	if err := s.allocTimes(int64(len(fill)), missing); err != nil {
		return nil, err
	}
	if err := s.alloc(int64(len(v))); err != nil {
		return nil, err
	}
	before := missing
	switch {
	case left == 0:
		before = 0
	case right != 0: // as CPython's str.center rounds
		before = missing/2 + missing&width&1
	}
	return strings.Repeat(fill, int(before)) + v + strings.Repeat(fill, int(missing-before)), nil
}

func methodZfill(s *state, v string, a args) (Value, error) {
	got, err := a.bind(1, "width")
	if err != nil {
		return nil, err
	}
	width, err := intArg(a.name, got[0], 0)
	if err != nil {
		return nil, err
	}
	if v != "" && (v[0] == '-' || v[0] == '+') {
		rest, err := s.pad(v[1:], "0", max(width, 1)-1, 1, 0)
		if err != nil {
			return nil, err
		}
		return v[:1] + rest.(string), nil
	}
	return s.pad(v, "0", width, 1, 0)
}
