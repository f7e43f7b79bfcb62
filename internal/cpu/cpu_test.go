package cpu

import (
	"slices"
	"testing"
)

// The ladder starts with portable Go, rises, and ends with Best.
func TestLevels(t *testing.T) {
	l := Levels()
	if l[0] != Generic || !slices.IsSorted(l) || Best() != l[len(l)-1] {
		t.Fatalf("levels %v, best %v", l, Best())
	}
	for _, level := range l {
		if !Has(level) {
			t.Errorf("Has(%v) is false", level)
		}
	}
	if Has(AVX2) && Has(NEON) {
		t.Errorf("levels %v are of two architectures", l)
	}
	t.Logf("this machine and build: %v", l)
}
