package huge

import "unsafe"

const (
	line  = 64       // bytes of a cache line
	page  = 2 << 20  // bytes of a huge page of every architecture we have kernels for
	least = 64 << 10 // bytes that are worth asking for
)

// Bytes is n zero bytes that start at a cache line. Memory of the garbage
// collector's, as any other slice's. From 64 KiB on it is asked to lie in huge
// pages, which neighbours share: the runtime places large objects side by side.
// It may wait for the system to gather them.
func Bytes(n int) []byte { return bytes(n, true) }

// Quick is Bytes without the wait, for memory that is allocated while somebody
// waits: fresh memory comes in huge pages, what was used before stays as it is.
func Quick(n int) []byte { return bytes(n, false) }

func bytes(n int, gather bool) []byte {
	b, off := make([]byte, n), 0
	if at := address(b); at%line != 0 { // large objects start at a page
		b = make([]byte, n+line)
		off = int(-address(b) % line)
	}
	if n >= least {
		first, end := address(b)&^(page-1), (address(b)+uintptr(len(b))+page-1)&^(page-1)
		advise(first, end-first, gather)
	}
	return b[off : off+n : off+n]
}

// Split is count slices of size bytes each, side by side in one Bytes.
func Split(count, size int) [][]byte {
	all, parts := Bytes(count*size), make([][]byte, count)
	for i := range parts {
		parts[i] = all[i*size : (i+1)*size : (i+1)*size]
	}
	return parts
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
