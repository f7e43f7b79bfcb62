package huge

import "unsafe"

const (
	line = 64      // bytes of a cache line
	page = 2 << 20 // bytes of a huge page of every architecture we have kernels for
)

// Bytes is n zero bytes that start at a cache line. Memory of the garbage
// collector's, as any other slice's. Huge pages are asked for from half of one
// on, so that neighbours share them.
func Bytes(n int) []byte {
	b := make([]byte, n+line)
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if n >= page/2 {
		first, end := start&^(page-1), (start+uintptr(len(b))+page-1)&^(page-1)
		advise(first, end-first)
	}
	off := int(-start % line)
	return b[off : off+n : off+n]
}
