package minijinja

// builtinFunctions are Jinja2's global functions.
func builtinFunctions() map[string]Value {
	globals := map[string]Value{}
	for name, f := range map[string]func(*state, args) (Value, error){
		"range":     funcRange,
		"dict":      funcDict,
		"namespace": funcNamespace,
		"cycler":    funcCycler,
		"joiner":    funcJoiner,
	} {
		globals[name] = &Func{name: name, call: f}
	}
	return globals
}

// maxRange is the bound of Jinja2's own sandbox.
const maxRange = 100_000

func funcRange(s *state, a args) (Value, error) {
	if len(a.kw) > 0 || len(a.pos) < 1 || len(a.pos) > 3 {
		return nil, errorf("range takes 1 to 3 integers")
	}
	bounds := [3]int64{0, 0, 1}
	for i, v := range a.pos {
		n, err := asInt(v)
		if err != nil {
			return nil, err
		}
		bounds[i] = n
	}
	if len(a.pos) == 1 {
		bounds[0], bounds[1] = 0, bounds[0]
	}
	start, stop, step := bounds[0], bounds[1], bounds[2]
	if step == 0 {
		return nil, errorf("range: the step must not be zero")
	}
	var items []Value
	for at := start; step > 0 && at < stop || step < 0 && at > stop; {
		if len(items) == maxRange {
			return nil, limitf("range too big: the sandbox blocks ranges larger than %d", maxRange)
		}
		items = append(items, at)
		next := at + step
		if (next > at) != (step > 0) {
			break // past the end of the integers
		}
		at = next
	}
	if err := s.alloc(2 * wordSize * int64(len(items))); err != nil {
		return nil, err
	}
	return s.list(items)
}

// mapArgs are the entries of dict(...) and namespace(...), in order.
func (s *state) mapArgs(a args) (keys, vals []Value, err error) {
	if len(a.pos) > 1 {
		return nil, nil, errorf("%s takes at most one positional argument", a.name)
	}
	for _, v := range a.pos {
		if keys, vals, err = s.entries(v); err != nil {
			return nil, nil, err
		}
	}
	for _, kw := range a.kw {
		keys, vals = append(keys, kw.name), append(vals, kw.value)
	}
	return keys, vals, s.alloc(2 * wordSize * int64(len(keys)))
}

// entries are the pairs of a mapping or of a list of pairs.
func (s *state) entries(v Value) (keys, vals []Value, err error) {
	if d, ok := v.(*Dict); ok {
		return append(keys, d.keys...), append(vals, d.vals...), s.alloc(2 * wordSize * int64(len(d.keys)))
	}
	items, err := s.iterate(v)
	if err != nil {
		return nil, nil, err
	}
	for _, item := range items {
		pair, ok := item.(*List)
		if !ok || len(pair.items) != 2 {
			return nil, nil, errorf("a mapping is made from another or from pairs")
		}
		keys, vals = append(keys, pair.items[0]), append(vals, pair.items[1])
	}
	return keys, vals, s.alloc(2 * wordSize * int64(len(keys)))
}

func funcDict(s *state, a args) (Value, error) {
	keys, vals, err := s.mapArgs(a)
	if err != nil {
		return nil, err
	}
	return s.dict(keys, vals)
}

func funcNamespace(s *state, a args) (Value, error) {
	keys, vals, err := s.mapArgs(a)
	if err != nil {
		return nil, err
	}
	ns := &Namespace{vars: make(map[string]Value, len(keys))}
	for i, k := range keys {
		name, ok := k.(string)
		if !ok {
			return nil, errorf("namespace: names must be strings, not %s", typeName(k))
		}
		ns.vars[name] = vals[i]
	}
	return ns, s.alloc(dictEntry * int64(len(keys)+1))
}

// cycler goes round its items, one per call of next().
type cycler struct {
	items []Value
	at    int
}

func funcCycler(s *state, a args) (Value, error) {
	if len(a.kw) > 0 || len(a.pos) == 0 {
		return nil, errorf("cycler needs at least one item")
	}
	return &cycler{items: a.pos}, s.alloc(4 * wordSize)
}

func (c *cycler) attribute(name string) (Value, bool) {
	switch name {
	case "current":
		return c.items[c.at], true
	case "next":
		return method("cycler", name, func(_ *state, a args) (Value, error) {
			v := c.items[c.at]
			c.at = (c.at + 1) % len(c.items)
			return v, a.none()
		}), true
	case "reset":
		return method("cycler", name, func(_ *state, a args) (Value, error) {
			c.at = 0
			return nil, a.none()
		}), true
	}
	return nil, false
}

// funcJoiner makes a function that yields its separator on all calls but the first.
func funcJoiner(s *state, a args) (Value, error) {
	got, err := a.bind(0, "sep")
	if err != nil {
		return nil, err
	}
	var sep Value = ", "
	if isSet(got[0]) {
		sep = got[0]
	}
	used := false
	return &Func{name: "joiner", call: func(_ *state, a args) (Value, error) {
		if !used {
			used = true
			return "", a.none()
		}
		return sep, a.none()
	}}, s.alloc(4 * wordSize)
}
