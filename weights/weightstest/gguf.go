package weightstest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"

	"github.com/terse-llm/terse/tensor"
)

const ggufAlign = 32

// GGUF is the bytes of a GGUF file of version 3. Values of meta are bool,
// string, float32, float64, sized integers, slices of these, or []any of
// slices.
func GGUF(meta map[string]any, tensors []tensor.Tensor) ([]byte, error) {
	b := []byte("GGUF")
	b = binary.LittleEndian.AppendUint32(b, 3)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(meta)))
	var err error
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		kind, known := ggufKind(reflect.TypeOf(meta[key]))
		b = binary.LittleEndian.AppendUint32(appendString(b, key), kind)
		if b, err = appendValue(b, reflect.ValueOf(meta[key])); err != nil || !known {
			return nil, fmt.Errorf("cannot write metadata %q of type %T: %w", key, meta[key], err)
		}
	}
	if b, err = appendTensorInfos(b, tensors); err != nil {
		return nil, err
	}
	b = pad(b)
	for _, t := range tensors {
		b = pad(append(b, t.Data...))
	}
	return b, nil
}

// WriteGGUF writes a GGUF file.
func WriteGGUF(path string, meta map[string]any, tensors []tensor.Tensor) error {
	b, err := GGUF(meta, tensors)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func appendTensorInfos(b []byte, tensors []tensor.Tensor) ([]byte, error) {
	kinds := map[tensor.DType]uint32{
		tensor.F32: 0, tensor.F16: 1, tensor.Q4_0: 2, tensor.Q8_0: 8,
		tensor.Q4_K: 12, tensor.Q5_K: 13, tensor.Q6_K: 14, tensor.BF16: 30,
	}
	offset := 0
	for _, t := range tensors {
		kind, ok := kinds[t.DType]
		if !ok {
			return nil, fmt.Errorf("cannot write tensor %q: GGUF has no %v", t.Name, t.DType)
		}
		b = binary.LittleEndian.AppendUint32(appendString(b, t.Name), uint32(len(t.Shape)))
		for _, d := range slices.Backward(t.Shape) {
			b = binary.LittleEndian.AppendUint64(b, uint64(d))
		}
		b = binary.LittleEndian.AppendUint32(b, kind)
		b = binary.LittleEndian.AppendUint64(b, uint64(offset))
		offset += (len(t.Data) + ggufAlign - 1) / ggufAlign * ggufAlign
	}
	return b, nil
}

func pad(b []byte) []byte {
	for len(b)%ggufAlign != 0 {
		b = append(b, 0)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// ggufKind is the format's number for a Go type.
func ggufKind(t reflect.Type) (uint32, bool) {
	if t == nil {
		return 0, false
	}
	k, ok := map[reflect.Kind]uint32{
		reflect.Uint8: 0, reflect.Int8: 1, reflect.Uint16: 2, reflect.Int16: 3, reflect.Uint32: 4, reflect.Int32: 5,
		reflect.Float32: 6, reflect.Bool: 7, reflect.String: 8, reflect.Slice: 9, reflect.Interface: 9,
		reflect.Uint64: 10, reflect.Int64: 11, reflect.Float64: 12,
	}[t.Kind()]
	return k, ok
}

func appendValue(b []byte, v reflect.Value) ([]byte, error) {
	switch v.Kind() {
	case reflect.Interface:
		return appendValue(b, v.Elem())
	case reflect.String:
		return appendString(b, v.String()), nil
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case reflect.Float32:
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v.Float()))), nil
	case reflect.Slice:
		kind, ok := ggufKind(v.Type().Elem())
		if !ok {
			return nil, fmt.Errorf("GGUF has no arrays of %v", v.Type().Elem())
		}
		b = binary.LittleEndian.AppendUint32(b, kind)
		b = binary.LittleEndian.AppendUint64(b, uint64(v.Len()))
		var err error
		for i := range v.Len() {
			if b, err = appendValue(b, v.Index(i)); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	if !v.IsValid() || v.Kind() == reflect.Int || v.Kind() == reflect.Uint {
		return nil, fmt.Errorf("GGUF has no %v", v.Kind())
	}
	return binary.Append(b, binary.LittleEndian, v.Interface())
}
