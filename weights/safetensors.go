package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/terse-llm/terse/tensor"
)

// Limits of a safetensors header. The format's own limit is 100 MB; the largest
// published shards need less than one, and memory grows with it.
const (
	maxHeader = 32 << 20
	maxRank   = 8
)

// safeTypes are the format's element types: bytes per element (0 for those
// packed closer than a byte), and the type for those Terse computes with.
var safeTypes = map[string]struct {
	bytes int
	dtype tensor.DType
}{
	"F32": {4, tensor.F32}, "F16": {2, tensor.F16}, "BF16": {2, tensor.BF16},
	"F64": {8, 0}, "I64": {8, 0}, "U64": {8, 0}, "C64": {8, 0}, "I32": {4, 0}, "U32": {4, 0},
	"I16": {2, 0}, "U16": {2, 0}, "I8": {1, 0}, "U8": {1, 0}, "BOOL": {1, 0},
	"F8_E4M3": {1, 0}, "F8_E5M2": {1, 0}, "F8_E8M0": {1, 0}, "F4": {}, "F6_E2M3": {}, "F6_E3M2": {},
}

// safeInfo is one tensor of the header.
type safeInfo struct {
	DType   string  `json:"dtype"`
	Shape   numbers `json:"shape"`
	Offsets numbers `json:"data_offsets"` // begin and end, from the end of the header
}

// numbers is a short list of counts. Its length is checked before it is
// decoded, so that a long one costs nothing.
type numbers []int

func (n *numbers) UnmarshalJSON(b []byte) error {
	if bytes.Count(b, []byte(",")) >= maxRank {
		return fmt.Errorf("a list of more than %d numbers", maxRank)
	}
	var list []int
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if list == nil {
		return errors.New("null instead of a list of numbers")
	}
	for _, v := range list {
		if v < 0 {
			return fmt.Errorf("a negative number in %v", list)
		}
	}
	*n = list
	return nil
}

// readSafetensors lists the tensors of a file: eight bytes of header length, a
// JSON object of the tensors, their data without gaps.
func readSafetensors(data []byte, file string) ([]entry, error) {
	fail := func(err error) ([]entry, error) {
		return nil, fmt.Errorf("cannot read safetensors file %s: %w", file, err)
	}
	if len(data) < 8 {
		return fail(fmt.Errorf("it has only %d bytes", len(data)))
	}
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader {
		return fail(fmt.Errorf("header of %d bytes, limit %d: damaged, or not a safetensors file", n, maxHeader))
	}
	if n > uint64(len(data)-8) {
		return fail(fmt.Errorf("truncated: header of %d bytes, file of %d", n, len(data)))
	}
	var entries []entry
	var begins []int
	body := data[8+n:]
	err := eachMember(data[8:8+n], func(name string, dec *json.Decoder) error {
		if name == "__metadata__" {
			return dec.Decode(new(json.RawMessage))
		}
		var info safeInfo
		if err := dec.Decode(&info); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		e, err := info.entry(name, body)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		// Alignment is the file's affair: n and the offset together.
		if e.dtype != 0 && (8+int(n)+info.Offsets[0])%safeTypes[info.DType].bytes != 0 {
			return fmt.Errorf("tensor %q: %s data at byte %d is not aligned; save the file again with a current version of safetensors", name, info.DType, 8+int(n)+info.Offsets[0])
		}
		e.file = file
		entries = append(entries, e)
		begins = append(begins, info.Offsets[0])
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if err := tiled(entries, begins, len(body)); err != nil {
		return fail(err)
	}
	return entries, nil
}

// entry checks one tensor against the data of the file.
func (i safeInfo) entry(name string, body []byte) (entry, error) {
	t, known := safeTypes[i.DType]
	if !known {
		return entry{}, fmt.Errorf("unknown type %q", i.DType)
	}
	if i.Shape == nil || len(i.Offsets) != 2 {
		return entry{}, errors.New("shape or data_offsets are missing")
	}
	begin, end := i.Offsets[0], i.Offsets[1]
	if begin > end || end > len(body) {
		return entry{}, fmt.Errorf("data_offsets %v do not lie in the %d bytes of data: the file is truncated or damaged", []int(i.Offsets), len(body))
	}
	if t.bytes > 0 {
		size, ok := product(t.bytes, i.Shape)
		if !ok || size != end-begin {
			return entry{}, fmt.Errorf("%s of shape %v is not %d bytes long", i.DType, []int(i.Shape), end-begin)
		}
	}
	return entry{name: name, dtype: t.dtype, kind: i.DType, shape: i.Shape, data: body[begin:end:end]}, nil
}

// product is size times all dims; ok is false beyond an int.
func product(size int, dims []int) (n int, ok bool) {
	if slices.Contains(dims, 0) {
		return 0, true
	}
	n = size
	for _, d := range dims {
		hi, lo := bits.Mul64(uint64(n), uint64(d))
		if hi != 0 || int(lo) < 0 || uint64(int(lo)) != lo {
			return 0, false
		}
		n = int(lo)
	}
	return n, true
}

// tiled checks that the tensors cover the data from end to end without gaps or
// overlaps, as the format demands: what differs is damaged or hides something.
func tiled(entries []entry, begins []int, size int) error {
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(begins[a], begins[b]), cmp.Compare(len(entries[a].data), len(entries[b].data)))
	})
	at, last := 0, "the header"
	for _, i := range order {
		e := entries[i]
		switch {
		case begins[i] < at:
			return fmt.Errorf("tensor %q overlaps %s", e.name, last)
		case begins[i] > at:
			return fmt.Errorf("tensor %q begins %d bytes after the end of %s", e.name, begins[i]-at, last)
		}
		at, last = at+len(e.data), fmt.Sprintf("tensor %q", e.name)
	}
	if at != size {
		return fmt.Errorf("%d bytes after %s belong to no tensor", size-at, last)
	}
	return nil
}

// eachMember calls f for every member of a JSON object with the decoder at its
// value. A name twice is an error: decoding into a map would keep either.
func eachMember(b []byte, f func(name string, dec *json.Decoder) error) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil {
		return fmt.Errorf("no JSON object: %w", err)
	} else if t != json.Delim('{') {
		return fmt.Errorf("no JSON object: it begins with %v", t)
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return fmt.Errorf("damaged JSON object: %w", err)
		}
		name := t.(string) // the decoder refuses other keys
		if seen[name] {
			return fmt.Errorf("%q is there twice", name)
		}
		seen[name] = true
		if err := f(name, dec); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("damaged JSON object: %w", err)
	}
	if rest := bytes.TrimRight(b[dec.InputOffset():], " \t\r\n\x00"); len(rest) > 0 {
		return fmt.Errorf("%d bytes follow the JSON object", len(rest))
	}
	return nil
}
