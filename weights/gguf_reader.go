package weights

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// reader walks over the head of a GGUF file. Every read is checked against the
// bytes left; the first failure sticks, later reads give zeros.
type reader struct {
	data []byte
	at   int
	err  error
}

// take is the next n bytes, or nil after an error.
func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.data)-r.at {
		r.err = fmt.Errorf("truncated: %d bytes wanted at byte %d of %d", n, r.at, len(r.data))
		return nil
	}
	r.at += n
	return r.data[r.at-n : r.at : r.at]
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// count reads a number of things that take at least size bytes each in what is
// left of the file, so that it is safe to allocate for.
func (r *reader) count(what string, size int) int {
	at, n := r.at, r.u64()
	if left := len(r.data) - r.at; r.err == nil && n > uint64(left/size) {
		r.err = fmt.Errorf("%s %d at byte %d is more than the %d bytes left can hold: truncated or damaged", what, n, at, left)
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

// text is the bytes of a string.
func (r *reader) text() []byte { return r.take(r.count("string length", 1)) }

// maxDepth bounds arrays of arrays; the format sets no bound and no known
// model nests them at all.
const maxDepth = 4

// value reads a metadata value.
func (r *reader) value(t valueType, depth int) any {
	switch t {
	case typeString:
		return string(r.text())
	case typeArray:
		return r.array(depth)
	}
	b := r.take(t.minBytes())
	if b == nil {
		return nil
	}
	switch t {
	case typeUint8:
		return b[0]
	case typeInt8:
		return int8(b[0])
	case typeBool:
		return b[0] != 0
	case typeUint16:
		return binary.LittleEndian.Uint16(b)
	case typeInt16:
		return int16(binary.LittleEndian.Uint16(b))
	case typeUint32:
		return binary.LittleEndian.Uint32(b)
	case typeInt32:
		return int32(binary.LittleEndian.Uint32(b))
	case typeFloat32:
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	case typeUint64:
		return binary.LittleEndian.Uint64(b)
	case typeInt64:
		return int64(binary.LittleEndian.Uint64(b))
	case typeFloat64:
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	r.err = fmt.Errorf("unknown type %d of a metadata value before byte %d", t, r.at)
	return nil
}

// array reads an array as a slice of the element's Go type.
func (r *reader) array(depth int) any {
	t := valueType(r.u32())
	size := t.minBytes()
	if r.err == nil && size == 0 {
		r.err = fmt.Errorf("unknown type %d of array elements before byte %d", t, r.at)
	}
	if r.err == nil && depth >= maxDepth {
		r.err = errors.New("arrays nested too deeply")
	}
	n := r.count("array length", max(size, 1))
	if r.err != nil {
		return nil
	}
	switch t {
	case typeString:
		return r.strings(n)
	case typeArray:
		list := make([]any, 0, n)
		for range n {
			list = append(list, r.array(depth+1))
		}
		return list
	case typeUint8:
		return append([]uint8{}, r.take(n)...)
	case typeBool:
		list := make([]bool, n)
		for i, b := range r.take(n) {
			list[i] = b != 0
		}
		return list
	case typeInt8:
		return plainArray[int8](r, n)
	case typeUint16:
		return plainArray[uint16](r, n)
	case typeInt16:
		return plainArray[int16](r, n)
	case typeUint32:
		return plainArray[uint32](r, n)
	case typeInt32:
		return plainArray[int32](r, n)
	case typeFloat32:
		return plainArray[float32](r, n)
	case typeUint64:
		return plainArray[uint64](r, n)
	case typeInt64:
		return plainArray[int64](r, n)
	default:
		return plainArray[float64](r, n)
	}
}

// plainArray reads n numbers, whose bytes count has seen to be there.
func plainArray[T any](r *reader, n int) []T {
	list := make([]T, n)
	b := r.take(binary.Size(list))
	_, err := binary.Decode(b, binary.LittleEndian, list)
	r.err = cmp.Or(r.err, err)
	return list
}

// strings reads n strings as parts of one: a vocabulary has a hundred thousand.
func (r *reader) strings(n int) []string {
	start := r.at
	for range n {
		r.text()
	}
	if r.err != nil {
		return nil
	}
	all, list := string(r.data[start:r.at]), make([]string, n)
	at := 0
	for i := range list {
		end := at + 8 + int(binary.LittleEndian.Uint64(r.data[start+at:]))
		list[i] = all[at+8 : end]
		at = end
	}
	return list
}
