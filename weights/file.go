package weights

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"unsafe"
)

// file is the bytes of one file and how to let them go.
type file struct {
	data  []byte
	unmap func() error
}

func (f *file) close() error {
	if f.unmap == nil {
		return nil
	}
	unmap := f.unmap
	f.data, f.unmap = nil, nil
	return unmap()
}

// baseAlign is the alignment of the first byte of a file in memory: what any
// element type wants, and a page or an allocation always has.
const baseAlign = 8

// load gives the bytes of f without a copy where it can. name is for messages.
func load(f fs.File, name string) (*file, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot read %s: not a regular file", name)
	}
	if st.Size() > math.MaxInt {
		return nil, fmt.Errorf("cannot read %s: its %d bytes are more than this machine can address", name, st.Size())
	}
	size := int(st.Size())
	if size == 0 {
		return nil, fmt.Errorf("cannot read %s: the file is empty", name)
	}
	switch f := f.(type) {
	case *os.File:
		m, err := mapFile(f, size)
		if err != nil {
			return nil, fmt.Errorf("cannot map %s: %w", name, err)
		}
		return m, nil
	case interface{ Contents() string }:
		s := f.Contents()
		p := unsafe.StringData(s)
		if len(s) > 0 && uintptr(unsafe.Pointer(p))%baseAlign == 0 {
			return &file{data: unsafe.Slice(p, len(s))}, nil
		}
	}
	m, err := readFile(f, size)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return m, nil
}

func readFile(r io.Reader, size int) (*file, error) {
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	return &file{data: data}, nil
}
