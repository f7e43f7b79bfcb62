package minijinja

import (
	"strings"
	"unicode"

	"github.com/terse-llm/terse/internal/minijinja/parser"
)

type testFunc func(s *state, v Value, a args) (bool, error)

// builtinTests are Jinja2's tests, what follows `is`.
func builtinTests() map[string]testFunc {
	tests := map[string]testFunc{
		"boolean":     kindTest(func(v Value) bool { _, ok := v.(bool); return ok }),
		"callable":    kindTest(func(v Value) bool { _, ok := v.(*Func); return ok }),
		"defined":     kindTest(func(v Value) bool { return !isUndefined(v) }),
		"divisibleby": testDivisibleBy,
		"escaped":     kindTest(func(Value) bool { return false }),
		"even":        parity(0),
		"false":       kindTest(func(v Value) bool { return v == false }),
		"filter":      func(s *state, v Value, _ args) (bool, error) { return hasName(s.tmpl.filters, v), nil },
		"float":       kindTest(func(v Value) bool { _, ok := v.(float64); return ok }),
		"in":          testIn,
		"integer":     kindTest(func(v Value) bool { _, ok := v.(int64); return ok }),
		"iterable":    kindTest(isIterable),
		"lower":       letterTest(unicode.IsUpper),
		"mapping":     kindTest(func(v Value) bool { _, ok := v.(*Dict); return ok }),
		"none":        kindTest(func(v Value) bool { return v == nil }),
		"number":      kindTest(func(v Value) bool { _, ok := asNumber(v); return ok }),
		"odd":         parity(1),
		"sameas":      testSameAs,
		"sequence":    kindTest(isIterable),
		"string":      kindTest(func(v Value) bool { _, ok := v.(string); return ok }),
		"test":        func(s *state, v Value, _ args) (bool, error) { return hasName(s.tmpl.tests, v), nil },
		"true":        kindTest(func(v Value) bool { return v == true }),
		"undefined":   kindTest(isUndefined),
		"upper":       letterTest(unicode.IsLower),
	}
	for op, names := range map[parser.CompareOpKind]string{
		parser.CompareOpEq:  "eq equalto ==",
		parser.CompareOpNe:  "ne !=",
		parser.CompareOpLt:  "lt lessthan <",
		parser.CompareOpLte: "le <=",
		parser.CompareOpGt:  "gt greaterthan >",
		parser.CompareOpGte: "ge >=",
	} {
		for name := range strings.FieldsSeq(names) {
			tests[name] = comparison(op)
		}
	}
	return tests
}

func kindTest(is func(Value) bool) testFunc {
	return func(_ *state, v Value, a args) (bool, error) { return is(v), a.none() }
}

func isUndefined(v Value) bool {
	_, ok := v.(Undefined)
	return ok
}

// isIterable is also the test "sequence": strings, lists and dicts have a
// length and elements in Python.
func isIterable(v Value) bool {
	switch v.(type) {
	case string, *List, *Dict, Undefined:
		return true
	}
	return false
}

func hasName[T any](m map[string]T, v Value) bool {
	name, ok := v.(string)
	_, found := m[name]
	return ok && found
}

func comparison(op parser.CompareOpKind) testFunc {
	return func(s *state, v Value, a args) (bool, error) {
		got, err := a.bind(1, "other")
		if err != nil {
			return false, err
		}
		return s.compare(op, v, got[0])
	}
}

func testIn(s *state, v Value, a args) (bool, error) {
	got, err := a.bind(1, "seq")
	if err != nil {
		return false, err
	}
	return s.contains(got[0], v)
}

// testSameAs is `is` in Python: identity for containers; small values have none.
func testSameAs(_ *state, v Value, a args) (bool, error) {
	got, err := a.bind(1, "other")
	if err != nil {
		return false, err
	}
	if isUndefined(v) {
		return isUndefined(got[0]), nil
	}
	return v == got[0], nil
}

func testDivisibleBy(s *state, v Value, a args) (bool, error) {
	got, err := a.bind(1, "num")
	if err != nil {
		return false, err
	}
	rest, err := s.binary(parser.BinOpRem, v, got[0])
	if err != nil {
		return false, err
	}
	return s.equal(rest, int64(0))
}

func parity(want int64) testFunc {
	return func(_ *state, v Value, a args) (bool, error) {
		n, err := asInt(v)
		if err != nil {
			return false, err
		}
		return n&1 == want, a.none()
	}
}

// letterTest is str(v).isupper() or islower().
func letterTest(wrong func(rune) bool) testFunc {
	return func(s *state, v Value, a args) (bool, error) {
		str, err := s.str(v)
		if err != nil {
			return false, err
		}
		ok, err := cased(wrong)(s, str, a)
		return ok == true, err
	}
}
