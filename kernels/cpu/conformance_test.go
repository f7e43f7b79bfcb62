package cpu

import (
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels/kerneltest"
)

func TestConformance(t *testing.T) {
	for _, level := range cpu.Levels() {
		t.Run(level.String(), func(t *testing.T) {
			o := New(2, level)
			defer o.Close()
			kerneltest.Conformance(t, o)
		})
	}
}

func BenchmarkOps(b *testing.B) {
	for _, level := range cpu.Levels() {
		b.Run(level.String(), func(b *testing.B) {
			o := New(1, level)
			defer o.Close()
			kerneltest.Bench(b, o)
		})
	}
}
