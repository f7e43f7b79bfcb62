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

// Convert is t in type dt. Where rows are no whole number of dt's blocks, it is
// t in F32, as converters keep norms and biases.
func Convert(t tensor.Tensor, dt tensor.DType) tensor.Tensor {
	if n, _ := dt.Block(); len(t.Shape) < 2 && n > 1 || t.Shape[len(t.Shape)-1]%n != 0 {
		dt = tensor.F32
	}
	return Tensor(t.Name, dt, Values(t), t.Shape...)
}

// Values is every element of t, widened.
func Values(t tensor.Tensor) []float32 {
	values := make([]float32, t.Elems())
	blocks.Dequantize(values, t.DType, t.Data)
	return values
}
