package weightstest

import (
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// Tensor is values as a tensor of type dt and the given shape, outermost
// dimension first; block types round to nearest.
func Tensor(name string, dt tensor.DType, values []float32, shape ...int) tensor.Tensor {
	data := make([]byte, dt.RowBytes(len(values)))
	blocks.Quantize(data, dt, values)
	return tensor.Tensor{Name: name, DType: dt, Shape: shape, Data: data}
}

// Convert is t in type dt or, as converters do it, in the nearest type that can
// hold it: vectors (norms, biases) in F32 for every block type, and matrices
// whose rows are no whole number of dt's blocks in Q8_0 or else F32.
func Convert(t tensor.Tensor, dt tensor.DType) tensor.Tensor {
	row := t.Shape[len(t.Shape)-1]
	for _, dt := range []tensor.DType{dt, tensor.Q8_0, tensor.F32} {
		n, _ := dt.Block()
		if row%n == 0 && (n == 1 || len(t.Shape) > 1) {
			return Tensor(t.Name, dt, Values(t), t.Shape...)
		}
	}
	panic("BUG: F32 holds any row")
}

// Values is every element of t, widened.
func Values(t tensor.Tensor) []float32 {
	values := make([]float32, t.Elems())
	blocks.Dequantize(values, t.DType, t.Data)
	return values
}
