package huge

import (
	"testing"
	"unsafe"
)

func TestBytes(t *testing.T) {
	check(t, Bytes)
	check(t, Quick)
}

func check(t *testing.T, bytes func(int) []byte) {
	t.Helper()
	for _, n := range []int{0, 1, 63, 64, 4096, least - 1, least, least + 1, page/2 + 4096, page, 3*page + 17} {
		b := bytes(n)
		if len(b) != n || cap(b) != n {
			t.Fatalf("asked for %d bytes, got %d of %d", n, len(b), cap(b))
		}
		if at := uintptr(unsafe.Pointer(unsafe.SliceData(b))); at%line != 0 {
			t.Errorf("%d bytes start at %#x", n, at)
		}
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("byte %d of %d is %d", i, n, b[i])
			}
			b[i] = 0xff // the next one must not see it
		}
	}
}
