package gguf

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/terse-llm/terse/tensor"
)

// Align is the alignment of the tensors' bytes.
const Align = 32

// Write writes a file with the given metadata and tensors. Values of meta are
// bool, string, float32, float64, sized integers, slices of these, or []any of
// slices. data writes the bytes of tensor i of tensors; where it is nil they are
// the tensor's Data.
func Write(w io.Writer, meta map[string]any, tensors []tensor.Tensor, data func(w io.Writer, i int) error) error {
	b, err := header(meta, tensors)
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("cannot write the GGUF header: %w", err)
	}
	if data == nil {
		data = func(w io.Writer, i int) error {
			_, err := w.Write(tensors[i].Data)
			return err
		}
	}
	for i, t := range tensors {
		c := counter{w: w}
		if err := data(&c, i); err != nil {
			return fmt.Errorf("cannot write tensor %q: %w", t.Name, err)
		}
		if want := t.DType.RowBytes(t.Elems()); c.n != want {
			return fmt.Errorf("cannot write tensor %q: its source has %d bytes, its shape %d", t.Name, c.n, want)
		}
		if _, err := w.Write(pad(nil, c.n)); err != nil {
			return fmt.Errorf("cannot write tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// counter counts the bytes on their way to w.
type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

func header(meta map[string]any, tensors []tensor.Tensor) ([]byte, error) {
	b := []byte("GGUF")
	b = binary.LittleEndian.AppendUint32(b, 3)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(tensors)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(meta)))
	var err error
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		kind, known := kindOf(reflect.TypeOf(meta[key]))
		b = binary.LittleEndian.AppendUint32(appendString(b, key), kind)
		if !known {
			return nil, fmt.Errorf("cannot write metadata %q: GGUF has no %T", key, meta[key])
		}
		if b, err = appendValue(b, reflect.ValueOf(meta[key])); err != nil {
			return nil, fmt.Errorf("cannot write metadata %q: %w", key, err)
		}
	}
	if b, err = appendTensorInfos(b, tensors); err != nil {
		return nil, err
	}
	return pad(b, len(b)), nil
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
		offset += (t.DType.RowBytes(t.Elems()) + Align - 1) / Align * Align
	}
	return b, nil
}

// pad appends the zeros that make n bytes a whole number of Align.
func pad(b []byte, n int) []byte { return append(b, make([]byte, -n&(Align-1))...) }

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// kindOf is the format's number for a Go type.
func kindOf(t reflect.Type) (uint32, bool) {
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
		kind, ok := kindOf(v.Type().Elem())
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
