package ref

import (
	"fmt"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// BenchmarkLinear times the shapes of the built-in model (384 wide) and of a
// 7 B one; rows=1 is a decode step and rows=64 a piece of a prompt.
func BenchmarkLinear(b *testing.B) {
	for _, shape := range [][2]int{{384, 384}, {8192, 384}, {4096, 4096}} {
		for _, dt := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q4_0} {
			for _, rows := range []int{1, 8, 64} {
				b.Run(fmt.Sprintf("shape=%dx%d/type=%v/rows=%d", shape[0], shape[1], dt, rows), func(b *testing.B) {
					benchLinear(b, shape[0], shape[1], rows, dt)
				})
			}
		}
	}
}

func benchLinear(b *testing.B, out, in, rows int, dt tensor.DType) {
	values := make([]float32, out*in)
	for i := range values {
		values[i] = float32(i%13) - 6
	}
	w := tensor.Tensor{Name: "w", DType: dt, Shape: []int{out, in}, Data: make([]byte, dt.RowBytes(out*in))}
	blocks.Quantize(w.Data, dt, values)
	o, x, dst := New(1), make([]float32, rows*in), make([]float32, rows*out)
	p := []kernels.Projection{{Dst: dst, W: o.Pack(w)}}
	for b.Loop() {
		o.Linear(x, rows, p)
	}
	n := float64(out) * float64(in) * float64(b.N) / float64(b.Elapsed().Nanoseconds())
	b.ReportMetric(2*n*float64(rows), "GFLOP/s")
	b.ReportMetric(1/n, "ns/weight")
}
