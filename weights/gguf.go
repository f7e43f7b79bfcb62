package weights

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
)

// GGUF's bounds, of the format or of its reference reader.
const (
	ggufMagic      = "GGUF"
	ggufMaxDims    = 4
	ggufMaxName    = 64 << 10
	ggufAlignment  = 32 // where general.alignment is not given
	ggufMaxAlign   = 64 << 10
	ggufMinKey     = 8 + 4 + 1         // name length, type, value
	ggufMinTensor  = 8 + 4 + 8 + 4 + 8 // name length, rank, one dimension, type, offset
	alignmentKey   = "general.alignment"
	splitCountKey  = "split.count"
	ggufBigEndian2 = 2 << 24
	ggufBigEndian3 = 3 << 24
)

// openGGUF reads a GGUF file, version 2 or 3.
func openGGUF(f *file, path string) (*Source, error) {
	meta, entries, err := readGGUF(f.data, path)
	if err != nil {
		return nil, fmt.Errorf("cannot read GGUF file %s: %w", path, err)
	}
	s, err := newSource(path, entries, []*file{f})
	if err != nil {
		return nil, err
	}
	s.gguf = meta
	return s, nil
}

func readGGUF(data []byte, path string) (map[string]any, []entry, error) {
	if !bytes.HasPrefix(data, []byte(ggufMagic)) {
		return nil, nil, fmt.Errorf("it begins with %q and not with %q; models are GGUF files or Hugging Face directories", data[:min(4, len(data))], ggufMagic)
	}
	r := &reader{data: data, at: len(ggufMagic)}
	switch v := r.u32(); {
	case r.err != nil:
		return nil, nil, r.err
	case v == ggufBigEndian2 || v == ggufBigEndian3:
		return nil, nil, errors.New("big-endian files are not supported; convert it to little endian")
	case v != 2 && v != 3:
		return nil, nil, fmt.Errorf("version %d is not supported, only 2 and 3; convert the model again with a current llama.cpp", v)
	}
	tensors := r.count("tensor count", ggufMinTensor)
	keys := r.count("metadata count", ggufMinKey)
	meta, err := r.metadata(keys)
	if err != nil {
		return nil, nil, err
	}
	if n, ok := meta[splitCountKey]; ok && n != uint16(0) && n != uint16(1) {
		return nil, nil, fmt.Errorf("it is one of %v parts of a split model; join them with llama-gguf-split --merge", n)
	}
	infos, err := r.tensors(tensors)
	if err != nil {
		return nil, nil, err
	}
	align, err := alignment(meta)
	if err != nil {
		return nil, nil, err
	}
	entries, err := place(infos, data, (r.at+align-1)/align*align, align)
	for i := range entries {
		entries[i].file = path
	}
	return meta, entries, err
}

// metadata reads n keys with their values.
func (r *reader) metadata(n int) (map[string]any, error) {
	meta := map[string]any{}
	for i := range n {
		key := string(r.name())
		t := valueType(r.u32())
		v := r.value(t, 0)
		if r.err != nil {
			return nil, fmt.Errorf("metadata %d of %d, key %q: %w", i+1, n, key, r.err)
		}
		if _, ok := meta[key]; ok {
			return nil, fmt.Errorf("metadata key %q is there twice", key)
		}
		meta[key] = v
	}
	return meta, r.err
}

// name is a string short enough for a key or a tensor.
func (r *reader) name() []byte {
	b := r.text()
	if r.err == nil && (len(b) == 0 || len(b) > ggufMaxName) {
		r.err = fmt.Errorf("a name of %d bytes", len(b))
		return nil
	}
	return b
}

func alignment(meta map[string]any) (int, error) {
	v, ok := meta[alignmentKey]
	if !ok {
		return ggufAlignment, nil
	}
	n, ok := v.(uint32)
	if !ok || n < baseAlign || n > ggufMaxAlign || n&(n-1) != 0 {
		return 0, fmt.Errorf("%s is %v (%T), want a uint32 power of two from %d to %d", alignmentKey, v, v, baseAlign, ggufMaxAlign)
	}
	return int(n), nil
}

// ggufInfo is one tensor of the head, its shape outermost dimension first.
type ggufInfo struct {
	name   string
	kind   uint32
	shape  []int
	offset uint64 // from the start of the data
}

func (r *reader) tensors(n int) ([]ggufInfo, error) {
	var infos []ggufInfo
	for i := range n {
		info := ggufInfo{name: string(r.name())}
		rank := r.u32()
		if rank == 0 || rank > ggufMaxDims {
			r.err = cmp.Or(r.err, fmt.Errorf("%d dimensions, want 1 to %d", rank, ggufMaxDims))
		}
		for range min(rank, ggufMaxDims) {
			d := r.u64()
			if d > math.MaxInt {
				r.err = cmp.Or(r.err, fmt.Errorf("a dimension of %d", d))
			}
			info.shape = append(info.shape, int(d))
		}
		// The file has the contiguous dimension first.
		slices.Reverse(info.shape)
		info.kind, info.offset = r.u32(), r.u64()
		if r.err != nil {
			return nil, fmt.Errorf("tensor %d of %d, %q: %w", i+1, n, info.name, r.err)
		}
		infos = append(infos, info)
	}
	return infos, r.err
}

// place finds every tensor's bytes in the file, whose tensors start at base.
func place(infos []ggufInfo, data []byte, base, align int) ([]entry, error) {
	slices.SortStableFunc(infos, func(a, b ggufInfo) int { return cmp.Compare(a.offset, b.offset) })
	entries := make([]entry, 0, len(infos))
	end, last := uint64(0), ""
	for _, info := range infos {
		e, err := info.entry(data, base, align)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", info.name, err)
		}
		if info.offset < end {
			return nil, fmt.Errorf("tensor %q at %d overlaps tensor %q, which ends at %d", info.name, info.offset, last, end)
		}
		if len(e.data) > 0 {
			end, last = info.offset+uint64(len(e.data)), info.name
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (i ggufInfo) entry(data []byte, base, align int) (entry, error) {
	t, ok := ggmlTypes[i.kind]
	if !ok {
		return entry{}, fmt.Errorf("unknown type number %d", i.kind)
	}
	if i.offset%uint64(align) != 0 {
		return entry{}, fmt.Errorf("offset %d is not a multiple of the alignment %d", i.offset, align)
	}
	row := i.shape[len(i.shape)-1]
	if row%t.elems != 0 {
		return entry{}, fmt.Errorf("rows of %d elements are not whole blocks of %d of %s", row, t.elems, t.name)
	}
	// Blocks instead of elements in the last place give bytes without a
	// product that overflows before it is divided.
	blocks := slices.Clone(i.shape)
	blocks[len(blocks)-1] = row / t.elems
	size, ok := product(t.bytes, blocks)
	left := max(len(data)-base, 0)
	if !ok || i.offset > uint64(left) || size > left-int(i.offset) {
		return entry{}, fmt.Errorf("%s of shape %v at offset %d does not lie in the %d bytes of data: the file is truncated or damaged", t.name, i.shape, i.offset, left)
	}
	if _, ok := product(1, i.shape); !ok {
		return entry{}, fmt.Errorf("shape %v has more elements than can be counted", i.shape)
	}
	from := min(base, len(data)) + int(i.offset)
	return entry{name: i.name, dtype: t.dtype, kind: t.name, shape: i.shape, data: data[from : from+size : from+size]}, nil
}
