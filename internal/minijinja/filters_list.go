package minijinja

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/terse-llm/terse/internal/minijinja/parser"
)

// itemsOf is a copy of what v iterates over, for filters that reorder.
func (s *state) itemsOf(v Value) ([]Value, error) {
	items, err := s.iterate(v)
	if err != nil {
		return nil, err
	}
	if err := s.alloc(wordSize * int64(len(items))); err != nil {
		return nil, err
	}
	return slices.Clone(items), nil
}

func filterList(s *state, v Value, a args) (Value, error) {
	items, err := s.itemsOf(v)
	if err != nil {
		return nil, err
	}
	if err := a.none(); err != nil {
		return nil, err
	}
	return s.list(items)
}

func filterLength(s *state, v Value, a args) (Value, error) {
	if err := a.none(); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case Undefined:
		return int64(0), nil
	case string:
		return int64(utf8.RuneCountInString(v)), s.spend(int64(len(v)) / bytesPerStep)
	case *List:
		return int64(len(v.items)), nil
	case *Dict:
		return int64(len(v.keys)), nil
	}
	return nil, errorf("object of type '%s' has no len()", typeName(v))
}

func filterFirst(s *state, v Value, a args) (Value, error) {
	if str, ok := v.(string); ok && str != "" {
		return str[:runeSize(str)], a.none()
	}
	items, err := s.iterate(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return Undefined{why: "No first item, sequence was empty."}, a.none()
	}
	return items[0], a.none()
}

func filterLast(s *state, v Value, a args) (Value, error) {
	if str, ok := v.(string); ok && str != "" {
		_, size := utf8.DecodeLastRuneInString(str)
		return str[len(str)-size:], a.none()
	}
	items, err := s.iterate(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return Undefined{why: "No last item, sequence was empty."}, a.none()
	}
	return items[len(items)-1], a.none()
}

func filterJoin(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "d", "attribute")
	if err != nil {
		return nil, err
	}
	sep := ""
	if isSet(got[0]) {
		if sep, err = s.str(got[0]); err != nil {
			return nil, err
		}
	}
	items, err := s.iterate(v)
	if err != nil {
		return nil, err
	}
	t := &text{s: s}
	for i, item := range items {
		if isSet(got[1]) {
			if item, err = s.path(item, got[1]); err != nil {
				return nil, err
			}
		}
		part, err := s.str(item)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			t.add(sep)
		}
		t.add(part)
		if t.err != nil {
			break
		}
	}
	return t.value()
}

// path follows "a.b.0" from v, as the attribute= argument of filters does.
func (s *state) path(v, attr Value) (Value, error) {
	name, ok := attr.(string)
	if !ok {
		return s.item(v, attr)
	}
	for part := range strings.SplitSeq(name, ".") {
		var key Value = part
		if i, err := strconv.ParseInt(part, 10, 64); err == nil {
			key = i
		}
		var err error
		if v, err = s.item(v, key); err != nil {
			return nil, err
		}
		if err := s.spend(1); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// folded is what case-insensitive filters compare: text in lower case.
func (s *state) folded(v Value, sensitive bool) (Value, error) {
	str, ok := v.(string)
	if !ok || sensitive {
		return v, nil
	}
	if err := s.alloc(int64(len(str))); err != nil {
		return nil, err
	}
	return strings.ToLower(str), nil
}

type keyed struct{ key, item Value }

// keyedItems pairs the items of v with what they are compared by.
func (s *state) keyedItems(v, attr Value, sensitive bool) ([]keyed, error) {
	items, err := s.itemsOf(v)
	if err != nil {
		return nil, err
	}
	if err := s.alloc(2 * wordSize * int64(len(items))); err != nil {
		return nil, err
	}
	out := make([]keyed, len(items))
	for i, item := range items {
		key := item
		if isSet(attr) && attr != nil {
			if key, err = s.path(item, attr); err != nil {
				return nil, err
			}
		}
		if key, err = s.folded(key, sensitive); err != nil {
			return nil, err
		}
		out[i] = keyed{key, item}
	}
	return out, nil
}

// sortKeyed sorts stably; the first failing comparison is the error.
func (s *state) sortKeyed(list []keyed, reverse bool) error {
	var failed error
	slices.SortStableFunc(list, func(a, b keyed) int {
		if failed != nil {
			return 0
		}
		c, err := s.order(a.key, b.key)
		failed = err
		if reverse {
			return -c
		}
		return c
	})
	return failed
}

func (s *state) itemList(list []keyed) (Value, error) {
	items := make([]Value, len(list))
	for i, k := range list {
		items[i] = k.item
	}
	return s.list(items)
}

func filterSort(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "reverse", "case_sensitive", "attribute")
	if err != nil {
		return nil, err
	}
	list, err := s.keyedItems(v, got[2], flagArg(got[1], false))
	if err != nil {
		return nil, err
	}
	if err := s.sortKeyed(list, flagArg(got[0], false)); err != nil {
		return nil, err
	}
	return s.itemList(list)
}

func filterUnique(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "case_sensitive", "attribute")
	if err != nil {
		return nil, err
	}
	list, err := s.keyedItems(v, got[1], flagArg(got[0], false))
	if err != nil {
		return nil, err
	}
	if err := s.alloc(dictEntry * int64(len(list))); err != nil {
		return nil, err
	}
	seen := newDict(0)
	var out []keyed
	for _, k := range list {
		if _, dup := seen.get(k.key); dup {
			continue
		}
		if err := seen.set(k.key, nil); err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return s.itemList(out)
}

// extreme is max for want 1 and min for -1.
func extreme(want int) filterFunc {
	return func(s *state, v Value, a args) (Value, error) {
		got, err := a.bind(0, "case_sensitive", "attribute")
		if err != nil {
			return nil, err
		}
		list, err := s.keyedItems(v, got[1], flagArg(got[0], false))
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return Undefined{why: "No aggregated item, sequence was empty."}, nil
		}
		best := list[0]
		for _, k := range list[1:] {
			c, err := s.order(k.key, best.key)
			if err != nil {
				return nil, err
			}
			if c == want {
				best = k
			}
		}
		return best.item, nil
	}
}

func filterSum(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "attribute", "start")
	if err != nil {
		return nil, err
	}
	list, err := s.keyedItems(v, got[0], true)
	if err != nil {
		return nil, err
	}
	var total Value = int64(0)
	if isSet(got[1]) {
		total = got[1]
	}
	for _, k := range list {
		if total, err = s.binary(parser.BinOpAdd, total, k.key); err != nil {
			return nil, err
		}
	}
	return total, nil
}

func filterGroupBy(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(1, "attribute", "default", "case_sensitive")
	if err != nil {
		return nil, err
	}
	list, err := s.keyedItems(v, got[0], true)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if _, missing := list[i].key.(Undefined); missing && isSet(got[1]) {
			list[i].key = got[1]
		}
	}
	if err := s.sortKeyed(list, false); err != nil {
		return nil, err
	}
	var groups []Value
	for len(list) > 0 {
		n := 1
		for n < len(list) {
			eq, err := s.equal(list[n].key, list[0].key)
			if err != nil {
				return nil, err
			}
			if !eq {
				break
			}
			n++
		}
		members, err := s.itemList(list[:n])
		if err != nil {
			return nil, err
		}
		group, err := s.sequence([]Value{list[0].key, members}, true)
		if err != nil {
			return nil, err
		}
		groups = append(groups, group)
		list = list[n:]
	}
	return s.list(groups)
}

func filterDictSort(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "case_sensitive", "by", "reverse")
	if err != nil {
		return nil, err
	}
	d, ok := v.(*Dict)
	if !ok {
		return nil, errorf("dictsort: expected a mapping, found %s", typeName(v))
	}
	by, err := strArg("dictsort", got[1], "key")
	if err != nil {
		return nil, err
	}
	at := map[string]Value{"key": int64(0), "value": int64(1)}[by]
	if at == nil {
		return nil, errorf("dictsort: by must be 'key' or 'value'")
	}
	pairs, err := s.dictItems(d, args{name: "dictsort"})
	if err != nil {
		return nil, err
	}
	list, err := s.keyedItems(pairs, at, flagArg(got[0], false))
	if err != nil {
		return nil, err
	}
	if err := s.sortKeyed(list, flagArg(got[2], false)); err != nil {
		return nil, err
	}
	return s.itemList(list)
}

// filterBatch cuts into rows of n; filterSlice into n columns.
func filterBatch(s *state, v Value, a args) (Value, error) {
	items, n, fill, err := s.rowArgs(v, a)
	if err != nil {
		return nil, err
	}
	var rows []Value
	for len(items) > 0 {
		row := slices.Clone(items[:min(n, len(items))])
		items = items[len(row):]
		if isSet(fill) && fill != nil && len(row) < n {
			if err := s.allocTimes(wordSize, int64(n)); err != nil {
				return nil, err
			}
			for len(row) < n {
				row = append(row, fill)
			}
		}
		v, err := s.list(row)
		if err != nil {
			return nil, err
		}
		rows = append(rows, v)
	}
	return s.list(rows)
}

func (s *state) rowArgs(v Value, a args) ([]Value, int, Value, error) {
	got, err := a.bind(1, "n", "fill_with")
	if err != nil {
		return nil, 0, nil, err
	}
	n, err := intArg(a.name, got[0], 0)
	if err != nil {
		return nil, 0, nil, err
	}
	if n < 1 {
		return nil, 0, nil, errorf("%s needs a count of at least 1", a.name)
	}
	items, err := s.itemsOf(v)
	return items, int(min(n, 1<<40)), got[1], err
}

func filterSlice(s *state, v Value, a args) (Value, error) {
	items, n, fill, err := s.rowArgs(v, a)
	if err != nil {
		return nil, err
	}
	if err := s.allocTimes(4*wordSize, int64(n)); err != nil {
		return nil, err
	}
	per, extra := len(items)/n, len(items)%n
	columns := make([]Value, n)
	for i := range columns {
		size := per
		if i < extra { // the first columns hold what does not divide
			size++
		}
		column := slices.Clone(items[:size])
		items = items[size:]
		if isSet(fill) && fill != nil && i >= extra && extra > 0 {
			column = append(column, fill)
		}
		if columns[i], err = s.list(column); err != nil {
			return nil, err
		}
	}
	return s.list(columns)
}
