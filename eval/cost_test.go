package eval

import (
	"math"
	"testing"
)

// The sizes that docs/formats.md promises for the built-in model's shape, and
// the most that a 4,096-token prompt may take on the wire.
func TestCost(t *testing.T) {
	s := defaultSubject(t)
	f := func(format string, bits, wire float64) {
		t.Helper()
		c, err := CostOf(s, format)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(c.Bits-bits) > 1e-9 {
			t.Errorf("%s: %g bits an element, want %g", format, c.Bits, bits)
		}
		if c.Wire > wire || c.Wire < bits/16 {
			t.Errorf("%s: %.3f of f16 on the wire, want %.3f to %.3f", format, c.Wire, bits/16, wire)
		}
	}
	f("f16", 16, 1)
	f("hq4", 4.25, 0.31)
	f("hq3", 3.25, 0.27)
	f("hq2", 2.25, 0.21)
	f("hq2,sym=off", 2.5, 0.21)
	f("hack", 2.625, 0.18)
	f("hq4@top", 2.25, 0.21)
	f("hq3@top", 2.25, 0.21)

	for _, none := range []string{"hq9", "hq2@top", "hq2,important=10@top", "f16@top"} {
		if _, err := CostOf(s, none); err == nil {
			t.Errorf("format %s, which there is not, has a cost", none)
		}
	}
}
