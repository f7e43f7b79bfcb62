package minijinja

import "slices"

type containerFunc func(s *state, a args) (Value, error)

func method(owner, name string, f containerFunc) Value {
	return &Func{name: owner + "." + name, call: f}
}

// readOnly stands for the methods that change a value: transformers' sandbox
// refuses them as well.
func readOnly(owner, name string) Value {
	return method(owner, name, func(*state, args) (Value, error) {
		return nil, errorf("%s.%s is refused: values in a chat template cannot be changed (use namespace())", owner, name)
	})
}

func listMethod(l *List, name string) Value {
	owner := typeName(l)
	switch name {
	case "index":
		return method(owner, name, func(s *state, a args) (Value, error) { return listIndex(s, l, a) })
	case "count":
		return method(owner, name, func(s *state, a args) (Value, error) { return listCount(s, l, a) })
	case "copy":
		return method(owner, name, func(_ *state, a args) (Value, error) { return l, a.none() })
	case "append", "extend", "insert", "pop", "remove", "reverse", "sort", "clear":
		return readOnly(owner, name)
	}
	return nil
}

func listIndex(s *state, l *List, a args) (Value, error) {
	got, err := a.bind(1, "value")
	if err != nil {
		return nil, err
	}
	for i, item := range l.items {
		if eq, err := s.equal(item, got[0]); eq || err != nil {
			return int64(i), err
		}
	}
	return nil, errorf("list.index: the value is not in the list")
}

func listCount(s *state, l *List, a args) (Value, error) {
	got, err := a.bind(1, "value")
	if err != nil {
		return nil, err
	}
	n := int64(0)
	for _, item := range l.items {
		eq, err := s.equal(item, got[0])
		if err != nil {
			return nil, err
		}
		n += boolInt(eq)
	}
	return n, nil
}

func dictMethod(d *Dict, name string) Value {
	switch name {
	case "items":
		return method("dict", name, func(s *state, a args) (Value, error) { return s.dictItems(d, a) })
	case "keys":
		return method("dict", name, func(s *state, a args) (Value, error) { return s.copyOf(d.keys, a) })
	case "values":
		return method("dict", name, func(s *state, a args) (Value, error) { return s.copyOf(d.vals, a) })
	case "get":
		return method("dict", name, func(_ *state, a args) (Value, error) { return dictGet(d, a) })
	case "copy":
		return method("dict", name, func(_ *state, a args) (Value, error) { return d, a.none() })
	case "pop", "popitem", "update", "setdefault", "clear":
		return readOnly("dict", name)
	}
	return nil
}

func (s *state) copyOf(items []Value, a args) (Value, error) {
	if err := a.none(); err != nil {
		return nil, err
	}
	if err := s.alloc(wordSize * int64(len(items))); err != nil {
		return nil, err
	}
	return s.list(slices.Clone(items))
}

func (s *state) dictItems(d *Dict, a args) (Value, error) {
	if err := a.none(); err != nil {
		return nil, err
	}
	if err := s.alloc(wordSize * int64(len(d.keys))); err != nil {
		return nil, err
	}
	pairs := make([]Value, len(d.keys))
	for i, k := range d.keys {
		pair, err := s.sequence([]Value{k, d.vals[i]}, true)
		if err != nil {
			return nil, err
		}
		pairs[i] = pair
	}
	return s.list(pairs)
}

func dictGet(d *Dict, a args) (Value, error) {
	got, err := a.bind(1, "key", "default")
	if err != nil {
		return nil, err
	}
	if _, err := hashKey(got[0]); err != nil {
		return nil, err
	}
	if v, ok := d.get(got[0]); ok {
		return v, nil
	}
	if isSet(got[1]) {
		return got[1], nil
	}
	return nil, nil
}
