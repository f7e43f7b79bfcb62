package tensor

import (
	"math"
	"testing"
)

// Every half survives the round trip, and every float32 between two halves
// goes to the nearer one (the even one when halfway).
func TestHalfRoundTrip(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		f := F16ToF32(h)
		if f != f {
			if got := F32ToF16(f); got&0x7c00 != 0x7c00 || got&0x3ff == 0 {
				t.Fatalf("NaN %#04x became %#04x", h, got)
			}
			continue
		}
		if got := F32ToF16(f); got != h {
			t.Fatalf("%#04x -> %g -> %#04x", h, f, got)
		}
	}
	for i := 0; i < 0x7bff; i++ { // neighbours of positive finite halves
		a, b := F16ToF32(uint16(i)), F16ToF32(uint16(i+1))
		mid := (a + b) / 2 // exact in float32
		even := uint16(i + i&1)
		if got := F32ToF16(mid); got != even {
			t.Fatalf("halfway %g between %#04x and its successor went to %#04x", mid, i, got)
		}
		if got := F32ToF16(math.Nextafter32(mid, b)); got != uint16(i+1) {
			t.Fatalf("just above halfway after %#04x went to %#04x", i, got)
		}
	}
	if got := F32ToF16(65520); got != 0x7c00 {
		t.Fatalf("65520 rounds to %#04x, want infinity", got)
	}
}

func TestBF16(t *testing.T) {
	for i := range 1 << 16 {
		f := BF16ToF32(uint16(i))
		if f == f && F32ToBF16(f) != uint16(i) {
			t.Fatalf("%#04x -> %g -> %#04x", i, f, F32ToBF16(f))
		}
	}
	if got := F32ToBF16(float32(math.NaN())); BF16ToF32(got) == BF16ToF32(got) {
		t.Fatalf("NaN became %#04x", got)
	}
}
