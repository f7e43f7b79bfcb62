package minijinja

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

type filterFunc func(s *state, v Value, a args) (Value, error)

// builtinFilters are Jinja2's filters that make sense for plain text.
func builtinFilters() map[string]filterFunc {
	return map[string]filterFunc{
		"abs":        filterAbs,
		"attr":       filterAttr,
		"batch":      filterBatch,
		"capitalize": asMethod("capitalize"),
		"center":     filterCenter,
		"count":      filterLength,
		"d":          filterDefault,
		"default":    filterDefault,
		"dictsort":   filterDictSort,
		"e":          filterEscape,
		"escape":     filterEscape,
		"first":      filterFirst,
		"float":      filterFloat,
		"format":     filterFormat,
		"groupby":    filterGroupBy,
		"indent":     filterIndent,
		"int":        filterInt,
		"items":      filterItems,
		"join":       filterJoin,
		"last":       filterLast,
		"length":     filterLength,
		"list":       filterList,
		"lower":      asMethod("lower"),
		"map":        filterMap,
		"max":        extreme(1),
		"min":        extreme(-1),
		"reject":     choose(false, false),
		"rejectattr": choose(false, true),
		"replace":    asMethod("replace"),
		"reverse":    filterReverse,
		"round":      filterRound,
		"safe":       filterString,
		"select":     choose(true, false),
		"selectattr": choose(true, true),
		"slice":      filterSlice,
		"sort":       filterSort,
		"string":     filterString,
		"sum":        filterSum,
		"title":      filterTitle,
		"tojson":     filterToJSON,
		"trim":       asMethod("strip"),
		"unique":     filterUnique,
		"upper":      asMethod("upper"),
		"wordcount":  filterWordCount,
	}
}

// asMethod is a filter that is a method of str, applied to the value as text.
func asMethod(name string) filterFunc {
	f := lookupStringMethod(name)
	return func(s *state, v Value, a args) (Value, error) {
		str, err := s.str(v)
		if err != nil {
			return nil, err
		}
		if err := s.spend(1 + int64(len(str))/bytesPerStep); err != nil {
			return nil, err
		}
		return f(s, str, a)
	}
}

func filterAbs(_ *state, v Value, a args) (Value, error) {
	n, ok := asNumber(v)
	switch {
	case !ok:
		return nil, errorf("bad operand type for abs: '%s'", typeName(v))
	case !n.isInt:
		return math.Abs(n.f), a.none()
	case n.i == math.MinInt64:
		return nil, errorf("integer overflow in abs")
	case n.i < 0:
		return -n.i, a.none()
	}
	return n.i, a.none()
}

func filterAttr(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(1, "name")
	if err != nil {
		return nil, err
	}
	name, err := strArg("attr", got[0], "")
	if err != nil {
		return nil, err
	}
	if _, isDict := v.(*Dict); isDict { // attr never looks at keys
		return undefinedIn(v, name), nil
	}
	return s.attribute(v, name)
}

func filterCenter(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "width")
	if err != nil {
		return nil, err
	}
	width, err := intArg("center", got[0], 80)
	if err != nil {
		return nil, err
	}
	str, err := s.str(v)
	if err != nil {
		return nil, err
	}
	return s.pad(str, " ", width, 1, 1)
}

func filterDefault(_ *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "default_value", "boolean")
	if err != nil {
		return nil, err
	}
	_, missing := v.(Undefined)
	if !missing && !(flagArg(got[1], false) && !truth(v)) {
		return v, nil
	}
	if !isSet(got[0]) {
		return "", nil
	}
	return got[0], nil
}

func filterEscape(s *state, v Value, a args) (Value, error) {
	if err := a.none(); err != nil {
		return nil, err
	}
	str, err := s.str(v)
	if err != nil {
		return nil, err
	}
	if err := s.alloc(5 * int64(len(str))); err != nil {
		return nil, err
	}
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`, "&#34;").Replace(str), nil
}

func filterFloat(_ *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "default")
	if err != nil {
		return nil, err
	}
	if n, ok := asNumber(v); ok {
		return n.f, nil
	}
	if str, ok := v.(string); ok {
		if f, err := strconv.ParseFloat(strings.TrimSpace(str), 64); err == nil {
			return f, nil
		}
	}
	if isSet(got[0]) {
		return got[0], nil
	}
	return 0.0, nil
}

func filterInt(_ *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "default", "base")
	if err != nil {
		return nil, err
	}
	base, err := intArg("int", got[1], 10)
	if err != nil {
		return nil, err
	}
	if base < 2 || base > 36 {
		return nil, errorf("int: base must be in 2..36, not %d", base)
	}
	if n, ok := toInt(v, int(base)); ok {
		return n, nil
	}
	if isSet(got[0]) {
		return got[0], nil
	}
	return int64(0), nil
}

func toInt(v Value, base int) (int64, bool) {
	if n, ok := asNumber(v); ok {
		if n.isInt {
			return n.i, true
		}
		return floatToInt(n.f)
	}
	str, ok := v.(string)
	if !ok {
		return 0, false
	}
	str = strings.TrimSpace(str)
	if i, err := strconv.ParseInt(str, base, 64); err == nil {
		return i, true
	}
	f, err := strconv.ParseFloat(str, 64)
	if err != nil {
		return 0, false
	}
	return floatToInt(f)
}

func floatToInt(f float64) (int64, bool) {
	if math.IsNaN(f) || math.Abs(f) >= 1<<63 {
		return 0, false
	}
	return int64(f), true
}

func filterFormat(s *state, v Value, a args) (Value, error) {
	str, err := s.str(v)
	if err != nil {
		return nil, err
	}
	if len(a.kw) > 0 {
		return nil, errorf("format: named values are not supported")
	}
	return s.percentFormat(str, &List{items: a.pos, tuple: true})
}

func filterIndent(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "width", "first", "blank")
	if err != nil {
		return nil, err
	}
	pad := "    "
	if isSet(got[0]) {
		if pad, err = s.indentArg(got[0]); err != nil {
			return nil, err
		}
	}
	str, err := s.str(v)
	if err != nil {
		return nil, err
	}
	lines, err := s.collect(func(yield func(string)) { splitLines(str+"\n", false, yield) })
	if err != nil {
		return nil, err
	}
	first, blank := flagArg(got[1], false), flagArg(got[2], false)
	t := &text{s: s}
	for i, line := range lines.(*List).items {
		if i > 0 {
			t.add("\n")
		}
		if i == 0 && first || i > 0 && (blank || line != "") {
			t.add(pad)
		}
		t.add(line.(string))
	}
	return t.value()
}

func filterItems(s *state, v Value, a args) (Value, error) {
	switch d := v.(type) {
	case Undefined:
		return s.list(nil)
	case *Dict:
		return s.dictItems(d, a)
	}
	return nil, errorf("items: can only get item pairs from a mapping, not %s", typeName(v))
}

func filterString(s *state, v Value, a args) (Value, error) {
	if err := a.none(); err != nil {
		return nil, err
	}
	str, err := s.str(v)
	if err != nil {
		return nil, err
	}
	return str, nil
}

// filterTitle differs from str.title: words are cut at spaces, hyphens and
// opening brackets only.
func filterTitle(s *state, v Value, a args) (Value, error) {
	str, err := s.str(v)
	if err != nil {
		return nil, err
	}
	if err := s.alloc(3 * int64(len(str))); err != nil {
		return nil, err
	}
	var b strings.Builder
	for str != "" {
		cut := strings.IndexFunc(str, func(r rune) bool { return isSpace(r) || strings.ContainsRune("-({[<", r) })
		if cut < 0 {
			cut = len(str)
		}
		b.WriteString(capitalize(str[:cut]))
		next := min(cut+runeSize(str[cut:]), len(str))
		b.WriteString(str[cut:next])
		str = str[next:]
	}
	return b.String(), a.none()
}

func filterRound(_ *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "precision", "method")
	if err != nil {
		return nil, err
	}
	n, ok := asNumber(v)
	if !ok {
		return nil, errorf("round: a number is required, not %s", typeName(v))
	}
	precision, err := intArg("round", got[0], 0)
	if err != nil {
		return nil, err
	}
	how, err := strArg("round", got[1], "common")
	if err != nil {
		return nil, err
	}
	if n.isInt && how == "common" && precision >= 0 {
		return n.i, nil
	}
	scale := math.Pow(10, float64(precision))
	switch how {
	case "common":
		if precision >= 0 { // as Python: the decimal nearest to the exact value
			f, err := strconv.ParseFloat(strconv.FormatFloat(n.f, 'f', int(min(precision, 320)), 64), 64)
			return f, err
		}
		return math.RoundToEven(n.f*scale) / scale, nil
	case "ceil":
		return math.Ceil(n.f*scale) / scale, nil
	case "floor":
		return math.Floor(n.f*scale) / scale, nil
	}
	return nil, errorf("round: method must be common, ceil or floor")
}

func filterWordCount(s *state, v Value, a args) (Value, error) {
	str, err := s.str(v)
	if err != nil {
		return nil, err
	}
	n := int64(0)
	splitSpace(str, -1, func(string) { n++ })
	return n, a.none()
}

func filterReverse(s *state, v Value, a args) (Value, error) {
	if err := a.none(); err != nil {
		return nil, err
	}
	if str, ok := v.(string); ok {
		return s.sliceString(str, nil, nil, int64(-1))
	}
	items, err := s.iterate(v)
	if err != nil {
		return nil, err
	}
	if err := s.alloc(wordSize * int64(len(items))); err != nil {
		return nil, err
	}
	items = slices.Clone(items)
	slices.Reverse(items)
	return s.list(items)
}
