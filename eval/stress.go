package eval

import (
	"fmt"
	"slices"
	"strings"

	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// Stresses are the ways to make a model's keys hard to code while it computes
// the same.
func Stresses() []string { return []string{"outliers", "bias"} }

const (
	// outlierPairs and outlierFactor make two rotary pairs of every KV head as
	// large as the outlier channels of large models. A power of two changes
	// no digit of a float.
	outlierPairs  = 2
	outlierFactor = 16
	// biasValue is of the size of Qwen2.5's largest K biases relative to a
	// head's other channels.
	biasValue = 64
)

// Stress plants outliers in the keys of w's every KV head:
//
//   - "outliers" multiplies two rotary pairs of K's channels by 16 and divides
//     the same of its queries' by 16. Both channels of a pair are scaled alike, so
//     that this commutes with the rotation, and the products are the same.
//   - "bias" adds 64 to both channels of the slowest pair of K. Before
//     rotation a constant would shift all of a query's scores alike, which
//     softmax ignores; the rotation breaks that by the pair's angle between near and
//     far keys. The slowest pair turns least (by 0.06 in 4,096 tokens at
//     theta 100,000), and its queries are divided by 16, which makes what is
//     left small. It is not nothing: the exact model is measured too.
//
// w's matrices are replaced, never written to.
func Stress(w *model.Weights, kind string) error {
	c := w.Config
	if c.QKNorm {
		return fmt.Errorf("cannot stress this model: it normalises K after its projection")
	}
	pairs := c.Rotary.Dim / 2
	chosen := []int{pairs - 1}
	switch kind {
	case "bias":
	case "outliers":
		chosen = nil
		for i := range outlierPairs {
			chosen = append(chosen, (2*i+1)*pairs/(2*outlierPairs))
		}
	default:
		return fmt.Errorf("there is no stress %q: choose of %s", kind, strings.Join(Stresses(), ", "))
	}
	var channels []int
	for _, p := range chosen {
		if c.Rotary.Interleaved {
			channels = append(channels, 2*p, 2*p+1)
		} else {
			channels = append(channels, p, p+pairs)
		}
	}
	for i := range w.Layers {
		l := &w.Layers[i]
		l.Q = scaled(l.Q, c.HeadDim, channels, 1./outlierFactor)
		if kind == "outliers" {
			l.K = scaled(l.K, c.HeadDim, channels, outlierFactor)
		} else {
			l.K = shifted(l.K, c.HeadDim, channels, biasValue)
		}
	}
	return nil
}

// scaled is a projection in float32 with some channels of every head multiplied.
func scaled(p model.Projection, headDim int, channels []int, factor float32) model.Projection {
	out, in := p.W.Shape[0], p.W.Shape[1]
	values := make([]float32, out*in)
	blocks.Dequantize(values, p.W.DType, p.W.Data)
	bias := slices.Clone(p.Bias)
	for row := range out {
		if !slices.Contains(channels, row%headDim) {
			continue
		}
		for i := range values[row*in : (row+1)*in] {
			values[row*in+i] *= factor
		}
		if bias != nil {
			bias[row] *= factor
		}
	}
	data := make([]byte, 4*len(values))
	blocks.Quantize(data, tensor.F32, values)
	return model.Projection{W: tensor.Tensor{Name: p.W.Name, DType: tensor.F32, Shape: slices.Clone(p.W.Shape), Data: data}, Bias: bias}
}

// shifted is a projection with a constant added to some channels of every head.
func shifted(p model.Projection, headDim int, channels []int, by float32) model.Projection {
	bias := make([]float32, p.W.Shape[0])
	copy(bias, p.Bias)
	for row := range bias {
		if slices.Contains(channels, row%headDim) {
			bias[row] += by
		}
	}
	p.Bias = bias
	return p
}
