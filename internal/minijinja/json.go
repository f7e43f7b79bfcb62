package minijinja

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// FromJSON reads one JSON value. Objects keep the order of their keys, which
// templates print; numbers without a fraction become integers.
func FromJSON(data []byte) (Value, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := readJSON(dec, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot read JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("cannot read JSON: more follows the value")
	}
	return v, nil
}

func readJSON(dec *json.Decoder, depth int) (Value, error) {
	if depth > maxNesting {
		return nil, checkNesting(depth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok := tok.(type) {
	case json.Delim:
		if tok == '[' {
			return readJSONList(dec, depth)
		}
		return readJSONDict(dec, depth)
	case json.Number:
		return readJSONNumber(tok)
	}
	return tok, nil // string, bool or nil: Values as they are
}

func readJSONNumber(n json.Number) (Value, error) {
	if !strings.ContainsAny(n.String(), ".eE") {
		if i, err := n.Int64(); err == nil {
			return i, nil
		}
	}
	return n.Float64()
}

func readJSONList(dec *json.Decoder, depth int) (Value, error) {
	var items []Value
	for dec.More() {
		v, err := readJSON(dec, depth+1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	return newList(items, false)
}

func readJSONDict(dec *json.Decoder, depth int) (Value, error) {
	d := newDict(0)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		v, err := readJSON(dec, depth+1)
		if err != nil {
			return nil, err
		}
		if err := d.set(key.(string), v); err != nil { // the decoder admits string keys only
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	return d, nil
}

// jsonStyle is how json.dumps is asked to write.
type jsonStyle struct {
	item, key string // separators
	indent    string // "" for one line
	pretty    bool
	ascii     bool
	sorted    bool
}

// filterToJSON is transformers' tojson: json.dumps(x, ensure_ascii=False,
// indent=None, separators=None, sort_keys=False), no HTML escapes.
func filterToJSON(s *state, v Value, a args) (Value, error) {
	got, err := a.bind(0, "ensure_ascii", "indent", "separators", "sort_keys")
	if err != nil {
		return nil, err
	}
	style := jsonStyle{item: ", ", key: ": ", ascii: isSet(got[0]) && truth(got[0]), sorted: isSet(got[3]) && truth(got[3])}
	if isSet(got[1]) && got[1] != nil {
		style.pretty, style.item = true, ","
		if style.indent, err = s.indentArg(got[1]); err != nil {
			return nil, err
		}
	}
	if isSet(got[2]) && got[2] != nil {
		if style.item, style.key, err = separators(got[2]); err != nil {
			return nil, err
		}
	}
	t := &text{s: s}
	if err := writeJSON(t, v, style, 0); err != nil {
		return nil, err
	}
	return t.String()
}

// indentArg is an indent given as a width or as the text itself.
func (s *state) indentArg(v Value) (string, error) {
	if str, ok := v.(string); ok {
		return str, nil
	}
	n, err := asInt(v)
	if err != nil {
		return "", err
	}
	n = max(n, 0)
	if err := s.alloc(n); err != nil {
		return "", err
	}
	return strings.Repeat(" ", int(n)), nil
}

func separators(v Value) (item, key string, err error) {
	l, ok := v.(*List)
	if !ok || len(l.items) != 2 {
		return "", "", errorf("tojson: separators must be a pair of strings")
	}
	item, ok1 := l.items[0].(string)
	key, ok2 := l.items[1].(string)
	if !ok1 || !ok2 {
		return "", "", errorf("tojson: separators must be a pair of strings")
	}
	return item, key, nil
}

func writeJSON(t *text, v Value, st jsonStyle, depth int) error {
	switch v := v.(type) {
	case nil:
		t.add("null")
	case bool:
		t.add(strconv.FormatBool(v))
	case int64:
		t.add(strconv.FormatInt(v, 10))
	case float64:
		t.add(jsonFloat(v))
	case string:
		writeJSONString(t, v, st.ascii)
	case *List:
		return writeJSONList(t, v, st, depth)
	case *Dict:
		return writeJSONDict(t, v, st, depth)
	default:
		return errorf("Object of type %s is not JSON serializable", typeName(v))
	}
	return t.err
}

func jsonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return floatRepr(f)
}

func (st jsonStyle) newline(t *text, depth int) {
	if !st.pretty {
		return
	}
	t.add("\n")
	for range depth {
		t.add(st.indent)
	}
}

func writeJSONList(t *text, l *List, st jsonStyle, depth int) error {
	if len(l.items) == 0 {
		t.add("[]")
		return t.err
	}
	t.add("[")
	for i, item := range l.items {
		if i > 0 {
			t.add(st.item)
		}
		st.newline(t, depth+1)
		if err := writeJSON(t, item, st, depth+1); err != nil {
			return err
		}
	}
	st.newline(t, depth)
	t.add("]")
	return t.err
}

func writeJSONDict(t *text, d *Dict, st jsonStyle, depth int) error {
	if len(d.keys) == 0 {
		t.add("{}")
		return t.err
	}
	order, err := jsonOrder(d, st.sorted)
	if err != nil {
		return err
	}
	t.add("{")
	for n, i := range order {
		if n > 0 {
			t.add(st.item)
		}
		st.newline(t, depth+1)
		key, err := jsonKey(d.keys[i])
		if err != nil {
			return err
		}
		writeJSONString(t, key, st.ascii)
		t.add(st.key)
		if err := writeJSON(t, d.vals[i], st, depth+1); err != nil {
			return err
		}
	}
	st.newline(t, depth)
	t.add("}")
	return t.err
}

func jsonOrder(d *Dict, sorted bool) ([]int, error) {
	order := make([]int, len(d.keys))
	for i := range order {
		order[i] = i
	}
	if !sorted {
		return order, nil
	}
	for _, k := range d.keys {
		if _, ok := k.(string); !ok {
			return nil, errorf("tojson: sort_keys needs string keys, found %s", typeName(k))
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return strings.Compare(d.keys[a].(string), d.keys[b].(string))
	})
	return order, nil
}

func jsonKey(k Value) (string, error) {
	switch k := k.(type) {
	case string:
		return k, nil
	case nil:
		return "null", nil
	case bool:
		return strconv.FormatBool(k), nil
	case int64:
		return strconv.FormatInt(k, 10), nil
	case float64:
		return jsonFloat(k), nil
	}
	return "", errorf("keys must be str, int, float, bool or None, not %s", typeName(k))
}

func writeJSONString(t *text, v string, ascii bool) {
	t.add(`"`)
	plain := 0
	for i, r := range v {
		esc := jsonEscape(r, ascii)
		if esc == "" {
			continue
		}
		t.add(v[plain:i])
		t.add(esc)
		plain = i + len(string(r))
		if t.err != nil {
			return
		}
	}
	t.add(v[plain:])
	t.add(`"`)
}

func jsonEscape(r rune, ascii bool) string {
	switch r {
	case '"':
		return `\"`
	case '\\':
		return `\\`
	case '\n':
		return `\n`
	case '\r':
		return `\r`
	case '\t':
		return `\t`
	case '\b':
		return `\b`
	case '\f':
		return `\f`
	}
	switch {
	case r < 0x20 || ascii && r >= 0x7f && r < 0x10000:
		if r == 0x7f {
			return ""
		}
		return fmt.Sprintf(`\u%04x`, r)
	case ascii && r >= 0x10000:
		r -= 0x10000
		return fmt.Sprintf(`\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
	}
	return ""
}
