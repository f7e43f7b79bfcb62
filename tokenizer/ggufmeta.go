package tokenizer

import (
	"fmt"
	"slices"
)

// ggufMeta reads metadata values whatever their Go types.
type ggufMeta map[string]any

// vocabulary reads tokens, scores and kinds, all of one length, and the names
// of the special tokens.
func (m ggufMeta) vocabulary() (*spVocab, error) {
	v := &spVocab{}
	var err error
	if v.tokens, err = m.strings("tokenizer.ggml.tokens", maxVocab); err != nil {
		return nil, err
	}
	n := len(v.tokens)
	if v.scores, err = numbers[float32](m, "tokenizer.ggml.scores", n); err != nil {
		return nil, err
	}
	if v.kinds, err = numbers[int32](m, "tokenizer.ggml.token_type", n); err != nil {
		return nil, err
	}
	if v.kinds == nil {
		v.kinds = slices.Repeat([]int32{kindNormal}, n)
	}
	for _, x := range []struct {
		key  string
		name *string
	}{
		{"bos", &v.names.bos}, {"eos", &v.names.eos}, {"padding", &v.names.pad}, {"unknown", &v.names.unk},
	} {
		key := "tokenizer.ggml." + x.key + "_token_id"
		id, ok := m.number(key)
		if ok && id >= uint64(n) {
			return nil, fmt.Errorf("%s is %d and the vocabulary has %d tokens", key, id, n)
		}
		if ok {
			*x.name = v.tokens[id]
		}
	}
	return v, nil
}

// flag is a boolean, or def where the key is missing.
func (m ggufMeta) flag(key string, def bool) bool {
	if b, ok := m[key].(bool); ok {
		return b
	}
	return def
}

// number is a non-negative integer.
func (m ggufMeta) number(key string) (uint64, bool) {
	v, ok := m[key]
	if !ok {
		return 0, false
	}
	f, ok := toNumber(v)
	if !ok || f < 0 {
		return 0, false
	}
	return uint64(f), true
}

// strings is an array of strings.
func (m ggufMeta) strings(key string, limit int) ([]string, error) {
	var out []string
	switch a := m[key].(type) {
	case []string:
		out = a
	case []any:
		out = make([]string, len(a))
		for i, v := range a {
			s, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("%s[%d] is a %T, not a string", key, i, v)
			}
			out[i] = s
		}
	default:
		return nil, fmt.Errorf("%s is missing or not an array of strings", key)
	}
	if len(out) == 0 || len(out) > limit {
		return nil, fmt.Errorf("%s has %d entries: want 1 to %d", key, len(out), limit)
	}
	return out, nil
}

// numbers is an array of n numbers, or nil where the key is missing.
func numbers[T float32 | int32](m ggufMeta, key string, n int) ([]T, error) {
	v, ok := m[key]
	if !ok {
		return nil, nil
	}
	var out []T
	switch a := v.(type) {
	case []T:
		out = a
	case []uint32:
		out = convert[T](a)
	case []int32:
		out = convert[T](a)
	case []float32:
		out = convert[T](a)
	case []float64:
		out = convert[T](a)
	case []any:
		out = make([]T, len(a))
		for i := range a {
			f, ok := toNumber(a[i])
			if !ok {
				return nil, fmt.Errorf("%s[%d] is a %T, not a number", key, i, a[i])
			}
			out[i] = T(f)
		}
	default:
		return nil, fmt.Errorf("%s is a %T, not an array of numbers", key, v)
	}
	if len(out) != n {
		return nil, fmt.Errorf("%s has %d entries and the vocabulary %d tokens", key, len(out), n)
	}
	return out, nil
}

func convert[T float32 | int32, F uint32 | int32 | float32 | float64](a []F) []T {
	out := make([]T, len(a))
	for i, v := range a {
		out[i] = T(v)
	}
	return out
}

// toNumber takes any numeric type; float64 holds all the values that matter.
func toNumber(v any) (float64, bool) {
	switch n := v.(type) {
	case uint8:
		return float64(n), true
	case int8:
		return float64(n), true
	case uint16:
		return float64(n), true
	case int16:
		return float64(n), true
	case uint32:
		return float64(n), true
	case int32:
		return float64(n), true
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	case int:
		return float64(n), true
	case float32:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
