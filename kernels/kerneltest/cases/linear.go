package cases

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// Linear is one product of rows activations with an [Out, In] matrix of Type.
type Linear struct {
	Type          tensor.DType
	Out, In, Rows int
	Bias          bool
}

func (l Linear) String() string {
	return fmt.Sprintf("%v/%dx%dx%d", l.Type, l.Rows, l.In, l.Out)
}

// PlainTypes hold each weight on its own; BlockTypes hold codes and scales, and
// backends may code the activations to 8 bits for them.
func PlainTypes() []tensor.DType { return []tensor.DType{tensor.F32, tensor.F16, tensor.BF16} }

// BlockTypes are the block-quantised types.
func BlockTypes() []tensor.DType {
	return []tensor.DType{tensor.Q8_0, tensor.Q4_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K}
}

// Linears are the products that are checked: sizes around the tiles that kernels
// like (4, 8, 16, 32, 48, 64 outputs; 6, 8, 12 rows; blocks of inputs), and one
// larger than any cache-blocking step in each direction.
func Linears() []Linear {
	var all []Linear
	for i, t := range PlainTypes() {
		for j, out := range []int{1, 3, 8, 17, 33, 67} {
			all = append(all, Linear{t, out, []int{1, 7, 64, 129, 513, 1025}[(i+j)%6], []int{1, 2, 5, 13}[j%4], j%2 == 0})
		}
		all = append(all, Linear{t, 130, 515, 70, true}, Linear{t, 31, 4099, 3, false})
	}
	for i, t := range BlockTypes() {
		for j, out := range []int{1, 9, 16, 37, 67} {
			all = append(all, Linear{t, out, 256 * (1 + (i+j)%3), []int{1, 2, 5, 13}[j%4], j%2 == 0})
		}
		all = append(all, Linear{t, 130, 512, 70, true}, Linear{t, 31, 4096, 3, false})
	}
	for _, t := range []tensor.DType{tensor.Q8_0, tensor.Q4_0} {
		all = append(all, Linear{t, 21, 32, 4, true}, Linear{t, 21, 160, 4, false})
	}
	return all
}

// Weights is a random matrix of deviation 1, with rows of zeros, tiny rows and
// rows with an outlier among them.
func (l Linear) Weights(seed uint64) tensor.Tensor {
	r := rand.New(rand.NewPCG(seed, 3))
	v := Gaussian(r, l.Out*l.In)
	for o := range l.Out {
		row := v[o*l.In : (o+1)*l.In]
		switch o % 16 {
		case 3:
			clear(row)
		case 6:
			for i := range row {
				row[i] *= 1e-4
			}
		case 9:
			row[r.IntN(l.In)] = 40
		}
	}
	return matrix(l.Type, v, l.Out, l.In)
}

func matrix(t tensor.DType, v []float32, out, in int) tensor.Tensor {
	w := tensor.Tensor{Name: "w", DType: t, Shape: []int{out, in}, Data: make([]byte, t.RowBytes(out*in))}
	blocks.Quantize(w.Data, t, v)
	return w
}

// BulkWeights is a matrix whose values repeat after a million: quick to make.
func (l Linear) BulkWeights(seed uint64) tensor.Tensor {
	const pool = 1 << 20
	r := rand.New(rand.NewPCG(seed, 3))
	some := matrix(l.Type, Gaussian(r, min(pool, l.Out*l.In)), 1, min(pool, l.Out*l.In))
	size := l.Type.RowBytes(l.Out * l.In)
	data := bytes.Repeat(some.Data, (size+len(some.Data)-1)/len(some.Data))[:size:size]
	return tensor.Tensor{Name: "w", DType: l.Type, Shape: []int{l.Out, l.In}, Data: data}
}

// Activations are rows as models have them: Gaussian, some channels far out, a
// row of zeros and one of tiny values.
func Activations(seed uint64, rows, n int) []float32 {
	r := rand.New(rand.NewPCG(seed, 4))
	x := Gaussian(r, rows*n)
	for i := range x {
		if i%n%61 == 17 {
			x[i] *= 60
		}
		switch i / n {
		case 1:
			x[i] = 0
		case 2:
			x[i] *= 1e-20
		}
	}
	return x
}
