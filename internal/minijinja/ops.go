package minijinja

import (
	"math"
	"strings"

	"github.com/terse-llm/terse/internal/minijinja/parser"
)

// number is an int64 or a float64 seen as both; bools count as integers, as in Python.
type number struct {
	i     int64
	f     float64
	isInt bool
}

func asNumber(v Value) (number, bool) {
	switch v := v.(type) {
	case bool:
		return number{i: boolInt(v), f: float64(boolInt(v)), isInt: true}, true
	case int64:
		return number{i: v, f: float64(v), isInt: true}, true
	case float64:
		return number{f: v}, true
	}
	return number{}, false
}

func asInt(v Value) (int64, error) {
	n, ok := asNumber(v)
	if !ok || !n.isInt {
		return 0, errorf("expected an integer, found %s", typeName(v))
	}
	return n.i, nil
}

// unsupported is the error for operands of the wrong types; an undefined one is named.
func unsupported(op string, a, b Value) error {
	for _, v := range []Value{a, b} {
		if u, ok := v.(Undefined); ok {
			return errorf("%s", u.why)
		}
	}
	return errorf("unsupported operand types for %s: '%s' and '%s'", op, typeName(a), typeName(b))
}

func (s *state) binary(op parser.BinOpKind, a, b Value) (Value, error) {
	switch op {
	case parser.BinOpAdd:
		if v, ok, err := s.join2(a, b); ok || err != nil {
			return v, err
		}
	case parser.BinOpMul:
		if v, ok, err := s.repeat(a, b); ok || err != nil {
			return v, err
		}
	case parser.BinOpRem:
		if format, ok := a.(string); ok {
			return s.percentFormat(format, b)
		}
	}
	x, ok1 := asNumber(a)
	y, ok2 := asNumber(b)
	if !ok1 || !ok2 {
		return nil, unsupported(op.String(), a, b)
	}
	if x.isInt && y.isInt && op != parser.BinOpDiv {
		return intOp(op, x.i, y.i)
	}
	return floatOp(op, x.f, y.f)
}

// join2 is + on two strings or two lists.
func (s *state) join2(a, b Value) (Value, bool, error) {
	if x, ok := a.(string); ok {
		if y, ok := b.(string); ok {
			if err := s.alloc(int64(len(x) + len(y))); err != nil {
				return nil, false, err
			}
			return x + y, true, nil
		}
	}
	x, ok1 := a.(*List)
	y, ok2 := b.(*List)
	if !ok1 || !ok2 || x.tuple != y.tuple {
		return nil, false, nil
	}
	if err := s.alloc(wordSize * int64(len(x.items)+len(y.items))); err != nil {
		return nil, false, err
	}
	items := append(append(make([]Value, 0, len(x.items)+len(y.items)), x.items...), y.items...)
	v, err := s.sequence(items, x.tuple)
	return v, true, err
}

// repeat is * with a string or a list on one side and an integer on the other.
func (s *state) repeat(a, b Value) (Value, bool, error) {
	if _, ok := asNumber(a); ok {
		a, b = b, a
	}
	count, ok := asNumber(b)
	if !ok || !count.isInt {
		return nil, false, nil
	}
	n := max(count.i, 0)
	switch v := a.(type) {
	case string:
		if err := s.allocTimes(int64(len(v)), n); err != nil {
			return nil, false, err
		}
		return strings.Repeat(v, int(n)), true, nil
	case *List:
		if err := s.allocTimes(wordSize*int64(len(v.items)), n); err != nil {
			return nil, false, err
		}
		items := make([]Value, 0, len(v.items)*int(n))
		if len(v.items) > 0 {
			for range n {
				items = append(items, v.items...)
			}
		}
		out, err := s.sequence(items, v.tuple)
		return out, true, err
	}
	return nil, false, nil
}

// allocTimes charges size*n bytes without overflow.
func (s *state) allocTimes(size, n int64) error {
	if size == 0 {
		return nil
	}
	if n > s.limits.Memory/size {
		return s.alloc(-1)
	}
	return s.alloc(size * n)
}

func intOp(op parser.BinOpKind, x, y int64) (Value, error) {
	overflow := errorf("integer overflow in %d %s %d", x, op, y)
	switch op {
	case parser.BinOpAdd:
		if r := x + y; (r > x) == (y > 0) {
			return r, nil
		}
	case parser.BinOpSub:
		if r := x - y; (r < x) == (y > 0) {
			return r, nil
		}
	case parser.BinOpMul:
		if x == 0 || y == 0 {
			return int64(0), nil
		}
		if r := x * y; r/y == x && !(x == -1 && y == math.MinInt64) && !(y == -1 && x == math.MinInt64) {
			return r, nil
		}
	case parser.BinOpFloorDiv, parser.BinOpRem:
		return intDivide(op, x, y)
	case parser.BinOpPow:
		return intPower(x, y)
	}
	return nil, overflow
}

func intDivide(op parser.BinOpKind, x, y int64) (Value, error) {
	if y == 0 {
		return nil, errorf("division by zero")
	}
	if y == -1 { // also keeps MinInt64 / -1 away from the CPU
		if op == parser.BinOpRem {
			return int64(0), nil
		}
		return intOp(parser.BinOpSub, 0, x)
	}
	q, r := x/y, x%y
	if r != 0 && (r < 0) != (y < 0) { // Python rounds towards minus infinity
		q, r = q-1, r+y
	}
	if op == parser.BinOpRem {
		return r, nil
	}
	return q, nil
}

func intPower(x, y int64) (Value, error) {
	if y < 0 {
		return floatOp(parser.BinOpPow, float64(x), float64(y))
	}
	if x == 0 || x == 1 || x == -1 {
		y = min(y, 2+y%2) // the result repeats; keeps the loop short
	}
	var r Value = int64(1)
	var err error
	for range y { // at most 63 rounds before it overflows
		if r, err = intOp(parser.BinOpMul, r.(int64), x); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func floatOp(op parser.BinOpKind, x, y float64) (Value, error) {
	if y == 0 && (op == parser.BinOpDiv || op == parser.BinOpFloorDiv || op == parser.BinOpRem) {
		return nil, errorf("division by zero")
	}
	switch op {
	case parser.BinOpAdd:
		return x + y, nil
	case parser.BinOpSub:
		return x - y, nil
	case parser.BinOpMul:
		return x * y, nil
	case parser.BinOpDiv:
		return x / y, nil
	case parser.BinOpFloorDiv:
		return math.Floor(x / y), nil
	case parser.BinOpRem:
		return x - y*math.Floor(x/y), nil
	case parser.BinOpPow:
		if x == 0 && y < 0 {
			return nil, errorf("division by zero")
		}
		return math.Pow(x, y), nil
	}
	return nil, errorf("BUG: no operator %s", op)
}

// equal is ==. It recurses no deeper than maxNesting.
func (s *state) equal(a, b Value) (bool, error) {
	if err := s.spend(1); err != nil {
		return false, err
	}
	if x, ok := asNumber(a); ok {
		y, ok := asNumber(b)
		if x.isInt && y.isInt {
			return ok && x.i == y.i, nil
		}
		return ok && x.f == y.f, nil
	}
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		if !ok || len(x) != len(y) {
			return false, nil
		}
		return x == y, s.spend(int64(len(x)) / bytesPerStep)
	case *List:
		y, ok := b.(*List)
		return s.equalLists(x, y, ok)
	case *Dict:
		y, ok := b.(*Dict)
		return s.equalDicts(x, y, ok)
	case Undefined:
		_, ok := b.(Undefined)
		return ok, nil
	}
	return a == b, nil // None, and objects by identity
}

func (s *state) equalLists(x, y *List, same bool) (bool, error) {
	if !same || len(x.items) != len(y.items) || x.tuple != y.tuple {
		return false, nil
	}
	for i := range x.items {
		if eq, err := s.equal(x.items[i], y.items[i]); !eq || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (s *state) equalDicts(x, y *Dict, same bool) (bool, error) {
	if !same || len(x.keys) != len(y.keys) {
		return false, nil
	}
	for i, k := range x.keys {
		other, ok := y.get(k)
		if !ok {
			return false, nil
		}
		if eq, err := s.equal(x.vals[i], other); !eq || err != nil {
			return false, err
		}
	}
	return true, nil
}

// order is Python's three-way comparison for <, <=, >, >= and sorting: -1, 0, 1.
func (s *state) order(a, b Value) (int, error) {
	if err := s.spend(1); err != nil {
		return 0, err
	}
	if x, ok := asNumber(a); ok {
		if y, ok := asNumber(b); ok {
			return compareNumbers(x, y), nil
		}
	}
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), s.spend(int64(min(len(x), len(y))) / bytesPerStep)
		}
	case *List:
		if y, ok := b.(*List); ok && x.tuple == y.tuple {
			return s.orderLists(x, y)
		}
	}
	return 0, unsupported("<", a, b)
}

func compareNumbers(x, y number) int {
	switch {
	case x.isInt && y.isInt && x.i < y.i, !(x.isInt && y.isInt) && x.f < y.f:
		return -1
	case x.isInt && y.isInt && x.i == y.i, !(x.isInt && y.isInt) && x.f == y.f:
		return 0
	}
	return 1
}

func (s *state) orderLists(x, y *List) (int, error) {
	for i := range min(len(x.items), len(y.items)) {
		eq, err := s.equal(x.items[i], y.items[i])
		if err != nil {
			return 0, err
		}
		if !eq {
			return s.order(x.items[i], y.items[i])
		}
	}
	return compareNumbers(number{i: int64(len(x.items)), isInt: true}, number{i: int64(len(y.items)), isInt: true}), nil
}

// contains is `item in box`.
func (s *state) contains(box, item Value) (bool, error) {
	switch box := box.(type) {
	case Undefined:
		return false, nil
	case string:
		sub, ok := item.(string)
		if !ok {
			return false, errorf("'in <string>' requires string as left operand, not %s", typeName(item))
		}
		return strings.Contains(box, sub), s.spend(int64(len(box)) / bytesPerStep)
	case *List:
		for _, v := range box.items {
			if eq, err := s.equal(item, v); eq || err != nil {
				return eq, err
			}
		}
		return false, nil
	case *Dict:
		if _, err := hashKey(item); err != nil {
			return false, err
		}
		_, ok := box.get(item)
		return ok, s.spend(weight(item) / bytesPerStep)
	}
	return false, errorf("argument of type '%s' is not iterable", typeName(box))
}

func (s *state) compare(op parser.CompareOpKind, a, b Value) (bool, error) {
	switch op {
	case parser.CompareOpEq:
		return s.equal(a, b)
	case parser.CompareOpNe:
		eq, err := s.equal(a, b)
		return !eq, err
	case parser.CompareOpIn:
		return s.contains(b, a)
	case parser.CompareOpNotIn:
		in, err := s.contains(b, a)
		return !in, err
	}
	c, err := s.order(a, b)
	if err != nil {
		return false, err
	}
	switch op {
	case parser.CompareOpLt:
		return c < 0, nil
	case parser.CompareOpLte:
		return c <= 0, nil
	case parser.CompareOpGt:
		return c > 0, nil
	}
	return c >= 0, nil
}
