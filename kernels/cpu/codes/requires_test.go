package codes

import (
	"os"
	"strings"
	"testing"
)

// No kernel uses instructions above its level: the assembly says what each
// requires.
func TestRequirements(t *testing.T) {
	asm, err := os.ReadFile("codes_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	kernels := 0
	for f := range strings.SplitSeq(string(asm), "\n// func ") {
		name, rest, _ := strings.Cut(f, "(")
		_, requires, _ := strings.Cut(rest, "// Requires: ")
		requires, _, _ = strings.Cut(requires, "\n")
		if strings.HasSuffix(name, "AVX2") {
			kernels++
			if strings.Contains(requires, "AVX512") {
				t.Errorf("%s requires %s", name, requires)
			}
		}
	}
	if kernels < 5 {
		t.Errorf("found %d kernels of AVX2", kernels)
	}
}
