package minijinja

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

func undefinedName(name string) Undefined {
	return Undefined{why: fmt.Sprintf("'%s' is undefined", name)}
}

func undefinedIn(v Value, what string) Undefined {
	return Undefined{why: fmt.Sprintf("'%s object' has no attribute '%s'", typeName(v), what)}
}

// attribute is v.name: a method first, then a key, as in Python.
func (s *state) attribute(v Value, name string) (Value, error) {
	switch v := v.(type) {
	case Undefined:
		return nil, errorf("%s", v.why)
	case string:
		if m := stringMethod(v, name); m != nil {
			return m, nil
		}
	case *List:
		if m := listMethod(v, name); m != nil {
			return m, nil
		}
	case *Dict:
		if m := dictMethod(v, name); m != nil {
			return m, nil
		}
		if val, ok := v.get(name); ok {
			return val, nil
		}
		return undefinedIn(v, name), nil
	case *Namespace:
		if val, ok := v.vars[name]; ok {
			return val, nil
		}
	case *loopVar:
		if val, ok := v.attribute(name); ok {
			return val, nil
		}
	case *cycler:
		if val, ok := v.attribute(name); ok {
			return val, nil
		}
	}
	if strings.HasPrefix(name, "_") {
		return nil, errorf("access to attribute '%s' of '%s' object is unsafe", name, typeName(v))
	}
	return undefinedIn(v, name), nil
}

// item is v[key]: an element first, then an attribute.
func (s *state) item(v, key Value) (Value, error) {
	switch box := v.(type) {
	case Undefined:
		return nil, errorf("%s", box.why)
	case *Dict:
		if _, err := hashKey(key); err != nil {
			return nil, err
		}
		if val, ok := box.get(key); ok {
			return val, nil
		}
	case *List:
		if i, err := asInt(key); err == nil {
			if i = wrapIndex(i, len(box.items)); i >= 0 {
				return box.items[i], nil
			}
			return Undefined{why: "list index out of range"}, nil
		}
	case string:
		if i, err := asInt(key); err == nil {
			return s.charAt(box, i)
		}
	}
	if name, ok := key.(string); ok {
		return s.attribute(v, name)
	}
	what, err := s.str(key)
	if err != nil {
		return nil, err
	}
	return undefinedIn(v, what), nil
}

// wrapIndex turns a Python index into a Go one, -1 where out of range.
func wrapIndex(i int64, n int) int64 {
	if i < 0 {
		i += int64(n)
	}
	if i < 0 || i >= int64(n) {
		return -1
	}
	return i
}

func (s *state) charAt(v string, i int64) (Value, error) {
	if err := s.spend(int64(len(v)) / bytesPerStep); err != nil {
		return nil, err
	}
	i = wrapIndex(i, utf8.RuneCountInString(v))
	if i < 0 {
		return Undefined{why: "string index out of range"}, nil
	}
	at := byteOffset(v, int(i))
	_, size := utf8.DecodeRuneInString(v[at:])
	return v[at : at+size], nil
}

// byteOffset is where character n of v begins.
func byteOffset(v string, n int) int {
	at := 0
	for ; n > 0 && at < len(v); n-- {
		_, size := utf8.DecodeRuneInString(v[at:])
		at += size
	}
	return at
}

// slice is v[start:stop:step] with nil for what is left out.
func (s *state) slice(v, start, stop, step Value) (Value, error) {
	switch box := v.(type) {
	case Undefined:
		return nil, errorf("%s", box.why)
	case string:
		return s.sliceString(box, start, stop, step)
	case *List:
		idx, err := s.sliceIndices(len(box.items), start, stop, step)
		if err != nil {
			return nil, err
		}
		items := make([]Value, idx.n)
		for k := range items {
			items[k] = box.items[idx.at(k)]
		}
		return s.sequence(items, box.tuple)
	}
	return nil, errorf("'%s' object cannot be sliced", typeName(v))
}

func (s *state) sliceString(v string, start, stop, step Value) (Value, error) {
	idx, err := s.sliceIndices(utf8.RuneCountInString(v), start, stop, step)
	if err != nil || idx.n == 0 {
		return "", err
	}
	if err := s.spend(int64(len(v)) / bytesPerStep); err != nil {
		return nil, err
	}
	if idx.step == 1 {
		from := byteOffset(v, int(idx.start))
		return v[from : from+byteOffset(v[from:], idx.n)], nil
	}
	if err := s.alloc(5 * int64(len(v))); err != nil {
		return nil, err
	}
	runes := []rune(v)
	out := make([]rune, idx.n)
	for k := range out {
		out[k] = runes[idx.at(k)]
	}
	return string(out), nil
}

type sliceRange struct {
	start, step int64
	n           int
}

func (r sliceRange) at(k int) int64 { return r.start + int64(k)*r.step }

// sliceIndices is Python's slice.indices; it charges for the copy to come.
func (s *state) sliceIndices(length int, startV, stopV, stepV Value) (sliceRange, error) {
	r := sliceRange{step: 1}
	var err error
	if stepV != nil {
		if r.step, err = asInt(stepV); err != nil {
			return r, err
		}
	}
	if r.step == 0 {
		return r, errorf("slice step cannot be zero")
	}
	n := int64(length)
	r.step = max(min(r.step, n+1), -n-1) // further steps reach the same elements
	low, high, from, to := int64(0), n, int64(0), n
	if r.step < 0 {
		low, high, from, to = -1, n-1, n-1, -1
	}
	if r.start, err = sliceBound(startV, from, n, low, high); err != nil {
		return r, err
	}
	stop, err := sliceBound(stopV, to, n, low, high)
	if err != nil {
		return r, err
	}
	if r.step > 0 && stop > r.start {
		r.n = int((stop - r.start + r.step - 1) / r.step)
	} else if r.step < 0 && stop < r.start {
		r.n = int((r.start - stop - r.step - 1) / -r.step)
	}
	return r, s.alloc(wordSize * int64(r.n))
}

func sliceBound(v Value, missing, n, low, high int64) (int64, error) {
	if v == nil {
		return missing, nil
	}
	i, err := asInt(v)
	if err != nil {
		return 0, err
	}
	if i < 0 {
		i = max(i, -n-1) + n // no underflow
	}
	return min(max(i, low), high), nil
}
