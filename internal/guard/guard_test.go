package guard

import (
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"
)

// What is asked for can be written, and the byte after it faults.
func TestBytes(t *testing.T) {
	for _, n := range []int{1, 5, 4096, 5000} {
		b := Bytes(t, n)
		for i := range b {
			b[i] = 1
		}
		f := Floats(t, n)
		f[n-1] = 1
		if runtime.GOOS == "linux" && !faults(unsafe.Pointer(unsafe.SliceData(b)), n) {
			t.Errorf("the byte after %d can be read", n)
		}
	}
}

func faults(p unsafe.Pointer, off int) (fault bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { fault = recover() != nil }()
	sink = *(*byte)(unsafe.Add(p, off))
	return
}

var sink byte
