package kerneltest

import (
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
)

// Bench times the works of package cases, one sub-benchmark each.
func Bench(b *testing.B, ops kernels.Ops) {
	for _, w := range cases.Works() {
		b.Run(w.Name, func(b *testing.B) {
			run := w.Setup(ops)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
			ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			b.ReportMetric(ns/w.Units, "ns/"+w.Unit)
			b.ReportMetric(w.Bytes/ns, "GB/s")
			if w.Flops+w.IntOps > 0 {
				b.ReportMetric((w.Flops+w.IntOps)/ns, "Gop/s")
			}
		})
	}
}
