package guard

import (
	"syscall"
	"testing"
)

// Bytes is n zero bytes that end at a page that cannot be accessed. They live
// until the test ends.
func Bytes(t testing.TB, n int) []byte {
	t.Helper()
	page := syscall.Getpagesize()
	size := (n + page - 1) / page * page
	m, err := syscall.Mmap(-1, 0, size+page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("cannot map %d bytes: %v", size+page, err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(m); err != nil {
			t.Errorf("cannot unmap %d bytes: %v", len(m), err)
		}
	})
	if err := syscall.Mprotect(m[size:], syscall.PROT_NONE); err != nil {
		t.Fatalf("cannot protect a page: %v", err)
	}
	return m[size-n : size : size]
}
