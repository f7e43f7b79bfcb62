package guard

import (
	"testing"
	"unsafe"
)

// Floats is Bytes for n float32s.
func Floats(t testing.TB, n int) []float32 {
	t.Helper()
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(Bytes(t, 4*n)))), n)
}
