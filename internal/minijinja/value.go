package minijinja

import (
	"math"
	"unicode/utf8"
)

// Value is what an expression yields. The set is closed: Undefined, nil
// (None), bool, int64, float64, string, *List, *Dict, *Namespace, *Func and
// the loop variable. All but Namespace are immutable, as in transformers'
// sandbox, so values cannot be cyclic.
type Value any

// Undefined is the value of a missing name: empty as text, empty as a list,
// an error for most else.
type Undefined struct{ why string }

// List is a list or a tuple.
type List struct {
	items  []Value
	tuple  bool
	weight int64
	depth  int
}

// Dict is a mapping in insertion order.
type Dict struct {
	keys   []Value
	vals   []Value
	index  map[Value]int // by normalised key
	weight int64
	depth  int
}

// Namespace is the one mutable value, made by namespace().
type Namespace struct{ vars map[string]Value }

// Func is something callable. Its owner shows in error messages.
type Func struct {
	name string
	call func(*state, args) (Value, error)
}

// NewFunc makes a function for [Options].Globals that takes positional
// arguments only. Its error ends the rendering and stays reachable by errors.As.
func NewFunc(name string, f func(pos []Value) (Value, error)) *Func {
	return &Func{name: name, call: func(s *state, a args) (Value, error) {
		if len(a.kw) > 0 {
			return nil, errorf("%s() takes no keyword arguments", name)
		}
		v, err := f(a.pos)
		if err != nil {
			return nil, err
		}
		return v, s.alloc(weight(v))
	}}
}

const wordSize = 16 // a Value; what each element of a container weighs at least

// weight is the size of v printed in full, in bytes: shared parts count each
// time. It bounds what printing and comparing can cost.
func weight(v Value) int64 {
	switch v := v.(type) {
	case string:
		return wordSize + int64(len(v))
	case *List:
		return v.weight
	case *Dict:
		return v.weight
	}
	return wordSize
}

func nesting(v Value) int {
	switch v := v.(type) {
	case *List:
		return v.depth
	case *Dict:
		return v.depth
	}
	return 0
}

func newList(items []Value, tuple bool) (*List, error) {
	l := &List{items: items, tuple: tuple, weight: 3 * wordSize}
	for _, v := range items {
		l.weight += weight(v)
		l.depth = max(l.depth, nesting(v)+1)
	}
	return l, checkNesting(l.depth)
}

func checkNesting(depth int) error {
	if depth > maxNesting {
		return limitf("values nest deeper than %d levels", maxNesting)
	}
	return nil
}

// list makes a list of items whose slice the caller has built; it charges the slice.
func (s *state) list(items []Value) (Value, error) { return s.sequence(items, false) }

func (s *state) sequence(items []Value, tuple bool) (Value, error) {
	if err := s.alloc(wordSize * int64(len(items)+3)); err != nil {
		return nil, err
	}
	l, err := newList(items, tuple)
	if err != nil {
		return nil, err
	}
	return l, s.checkWeight(l.weight)
}

// checkWeight stops values that are small in memory and huge in print, such
// as a list that holds the same list twice, thirty times over.
func (s *state) checkWeight(w int64) error {
	if w > s.limits.Memory/4 {
		return limitf("the template makes a value of more than %d bytes", s.limits.Memory/4)
	}
	return nil
}

func newDict(capacity int) *Dict {
	return &Dict{index: make(map[Value]int, capacity), weight: 3 * wordSize}
}

// hashKey maps equal keys to one: 1, 1.0 and true are one key in Python.
func hashKey(k Value) (Value, error) {
	switch k := k.(type) {
	case string, int64, nil:
		return k, nil
	case bool:
		return boolInt(k), nil
	case float64:
		if k == math.Trunc(k) && math.Abs(k) < 1<<53 {
			return int64(k), nil
		}
		return k, nil
	}
	return nil, errorf("unhashable type: '%s'", typeName(k))
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (d *Dict) get(k Value) (Value, bool) {
	h, err := hashKey(k)
	if err != nil {
		return nil, false
	}
	i, ok := d.index[h]
	if !ok {
		return nil, false
	}
	return d.vals[i], true
}

// set is for building: a Dict that a template can see never changes.
func (d *Dict) set(k, v Value) error {
	h, err := hashKey(k)
	if err != nil {
		return err
	}
	d.depth = max(d.depth, nesting(v)+1)
	if i, ok := d.index[h]; ok {
		d.weight += weight(v) - weight(d.vals[i])
		d.vals[i] = v
		return checkNesting(d.depth)
	}
	d.index[h] = len(d.keys)
	d.keys = append(d.keys, k)
	d.vals = append(d.vals, v)
	d.weight += weight(k) + weight(v)
	return checkNesting(d.depth)
}

// dictEntry is what one entry of a Dict costs in memory: two slices and a map slot.
const dictEntry = 96

func (s *state) dict(keys, vals []Value) (Value, error) {
	if err := s.alloc(dictEntry * int64(len(keys)+1)); err != nil {
		return nil, err
	}
	d := newDict(len(keys))
	for i, k := range keys {
		if err := d.set(k, vals[i]); err != nil {
			return nil, err
		}
	}
	return d, s.checkWeight(d.weight)
}

func truth(v Value) bool {
	switch v := v.(type) {
	case Undefined, nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case *List:
		return len(v.items) > 0
	case *Dict:
		return len(v.keys) > 0
	}
	return true
}

// typeName is Python's name of v's type, for messages users can look up.
func typeName(v Value) string {
	switch v := v.(type) {
	case Undefined:
		return "Undefined"
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case *List:
		if v.tuple {
			return "tuple"
		}
		return "list"
	case *Dict:
		return "dict"
	case *Namespace:
		return "Namespace"
	case *Func:
		return "function"
	}
	return "object"
}

// iterate lists what a for loop over v would visit.
func (s *state) iterate(v Value) ([]Value, error) {
	switch v := v.(type) {
	case Undefined:
		return nil, nil
	case *List:
		return v.items, nil
	case *Dict:
		return v.keys, nil
	case string:
		return s.characters(v)
	}
	return nil, errorf("'%s' object is not iterable", typeName(v))
}

func (s *state) characters(v string) ([]Value, error) {
	n := utf8.RuneCountInString(v)
	if err := s.alloc(2 * wordSize * int64(n)); err != nil {
		return nil, err
	}
	out := make([]Value, 0, n)
	for i := 0; i < len(v); {
		_, size := utf8.DecodeRuneInString(v[i:])
		out = append(out, v[i:i+size])
		i += size
	}
	return out, nil
}
