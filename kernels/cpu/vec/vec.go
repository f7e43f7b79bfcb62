package vec

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// Kernels are the kernels of one level. The functions trust their arguments: the
// methods check them.
type Kernels struct {
	sumSquares            func(x []float32) float64
	scale                 func(dst, x, weight []float32, factor float32) // over weight
	multiply              func(x []float32, factor float32)
	add                   func(x, y []float32)                                      // over y
	ropeHalves, ropePairs func(x []float32, heads, headDim int, cos, sin []float32) // heads >= 1
	swiGLU                func(gate, up []float32)
	widenF16, widenBF16   func(dst []float32, src []byte)
	largest               func(x []float32) float32
	find                  func(x []float32, v float32) int
	groupMax              func(dst, x []float32)
	expSum                func(dst, x []float32, shift, factor float32) float64
	// rotate turns blocks of 8, 16, … 256 channels; nil leaves it to quant.Plain.
	rotate [maxBlock]rotateFunc
}

// rotateFunc turns one block of channels, from x on, of heads >= 1 heads that lie
// stride channels apart.
type rotateFunc func(x *float32, heads, stride int, signs *float32, norm float32, inverse bool)

// maxBlock is the number of sizes of blocks, from 8 channels on.
const maxBlock = 6

// For makes the kernels of a level, which this machine must have.
func For(l cpu.Level) *Kernels {
	k := generic()
	k.use(l)
	return k
}

// RMSNorm computes dst[r] = x[r]/sqrt(mean(x[r]²)+eps)·weight for every run of
// len(weight) elements of x; dst may be x. The squares are summed up in float64.
func (k *Kernels) RMSNorm(dst, x, weight []float32, eps float32) {
	n := len(weight)
	for r := 0; r+n <= len(x) && n > 0; r += n {
		row := x[r : r+n]
		sum := k.sumSquares(row)
		k.scale(dst[r:r+n], row, weight, float32(1/math.Sqrt(sum/float64(n)+float64(eps))))
	}
}

// RoPE turns the channels of every head of a row ([heads][headDim]) pair by
// pair: (2i, 2i+1) if interleaved, otherwise (i, i+len(cos)). cos and sin are of
// the row's position, one for each pair; channels beyond the pairs stay.
func (k *Kernels) RoPE(x []float32, heads, headDim int, cos, sin []float32, interleaved bool) {
	if len(cos) != len(sin) || 2*len(cos) > headDim || heads < 0 || len(x) < heads*headDim {
		panic(fmt.Sprintf("BUG: RoPE of %d floats, %d heads of %d, %d cosines, %d sines", len(x), heads, headDim, len(cos), len(sin)))
	}
	switch {
	case heads == 0:
	case interleaved:
		k.ropePairs(x, heads, headDim, cos, sin)
	default:
		k.ropeHalves(x, heads, headDim, cos, sin)
	}
}

// SwiGLU computes gate = gate/(1+exp(-gate))·up in place, to 1e-6 of the value.
func (k *Kernels) SwiGLU(gate, up []float32) { k.swiGLU(gate, up[:len(gate)]) }

// Add adds y to every run of len(y) elements of x.
func (k *Kernels) Add(x, y []float32) {
	n := len(y)
	if n == 0 {
		return
	}
	for ; len(x) >= n; x = x[n:] {
		k.add(x, y)
	}
	k.add(x, y[:len(x)])
}

// Rotate turns every head of x (runs of len(r.Signs) elements) into the basis of
// the cache, or back: quant.Rotator.
func (k *Kernels) Rotate(x []float32, r *quant.Rotation, inverse bool) {
	d := len(r.Signs)
	heads := len(x) / d
	if heads*d != len(x) || !k.rotates(r) {
		quant.Plain{}.Rotate(x, r, inverse)
		return
	}
	if heads == 0 {
		return
	}
	at := 0
	for _, n := range r.Blocks {
		norm := float32(1 / math.Sqrt(float64(n)))
		k.rotate[bits.Len(uint(n))-4](&x[at], heads, d, &r.Signs[at], norm, inverse)
		at += n
	}
}

// rotates is whether there are kernels for all blocks of r.
func (k *Kernels) rotates(r *quant.Rotation) bool {
	at := 0
	for _, n := range r.Blocks {
		i := bits.Len(uint(n)) - 4
		if i < 0 || i >= maxBlock || n != 8<<i || k.rotate[i] == nil {
			return false
		}
		at += n
	}
	return at == len(r.Signs)
}

// Widen converts len(dst) elements of a row of any type to float32.
func (k *Kernels) Widen(dst []float32, t tensor.DType, src []byte) {
	if (t == tensor.F16 || t == tensor.BF16) && len(src) < 2*len(dst) {
		panic(fmt.Sprintf("BUG: %d bytes to make %d numbers of", len(src), len(dst)))
	}
	switch t {
	case tensor.F16:
		k.widenF16(dst, src)
	case tensor.BF16:
		k.widenBF16(dst, src)
	default:
		blocks.Dequantize(dst, t, src)
	}
}

// Softmax makes x the distribution of which it has the logits. NaN and minus
// infinity get no probability. Where no finite number is the largest, what is
// left is meaningless.
func (k *Kernels) Softmax(x []float32) {
	if sum := k.expSum(x, x, k.Max(x), 1); sum > 0 {
		k.multiply(x, float32(1/sum))
	}
}
