package vec

import (
	"encoding/binary"
	"math"

	"github.com/terse-llm/terse/tensor"
)

// generic are the kernels in plain Go.
func generic() *Kernels {
	return &Kernels{
		sumSquares: sumSquares, scale: scale, multiply: multiply, add: add,
		ropeHalves: ropeHalves, ropePairs: ropePairs, swiGLU: swiGLU,
		widenF16: widenF16, widenBF16: widenBF16,
		largest: largest, find: find, groupMax: groupMax, expSum: expSum,
	}
}

func sumSquares(x []float32) (sum float64) {
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

func scale(dst, x, weight []float32, factor float32) {
	for i, w := range weight {
		dst[i] = x[i] * factor * w
	}
}

func multiply(x []float32, factor float32) {
	for i := range x {
		x[i] *= factor
	}
}

func add(x, y []float32) {
	for i, v := range y {
		x[i] += v
	}
}

func ropeHalves(x []float32, heads, headDim int, cos, sin []float32) {
	n := len(cos)
	for h := range heads {
		a, b := x[h*headDim:][:n], x[h*headDim+n:][:n]
		for i, c := range cos {
			s, u, v := sin[i], a[i], b[i]
			a[i], b[i] = u*c-v*s, v*c+u*s
		}
	}
}

func ropePairs(x []float32, heads, headDim int, cos, sin []float32) {
	for h := range heads {
		head := x[h*headDim:][:2*len(cos)]
		for i, c := range cos {
			s, u, v := sin[i], head[2*i], head[2*i+1]
			head[2*i], head[2*i+1] = u*c-v*s, v*c+u*s
		}
	}
}

func swiGLU(gate, up []float32) {
	for i, g := range gate {
		gate[i] = float32(float64(g)/(1+math.Exp(-float64(g)))) * up[i]
	}
}

func widenF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = tensor.GetF16(src, i)
	}
}

func widenBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = tensor.BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func largest(x []float32) float32 {
	best := minusInf
	for _, v := range x {
		if v > best {
			best = v
		}
	}
	return best
}

func find(x []float32, v float32) int {
	for i, w := range x {
		if w == v {
			return i
		}
	}
	return len(x)
}

func groupMax(dst, x []float32) {
	for r := 0; r < len(x)/runSize; r++ {
		groupMaxOf(dst[r*groupsOfRun:][:groupsOfRun], x[r*runSize:][:runSize])
	}
}

// groupMaxOf is groupMax of one run, which may be short.
func groupMaxOf(dst, x []float32) {
	for j := range dst {
		dst[j] = minusInf
	}
	for i, v := range x {
		if j := i % groupsOfRun; v > dst[j] {
			dst[j] = v
		}
	}
}

// smallest is the exponent below which ExpSum gives 0.
const smallest = -87.33

func expSum(dst, x []float32, shift, factor float32) (sum float64) {
	for i, v := range x {
		y := (v - shift) * factor
		if !(y >= smallest) {
			dst[i] = 0
			continue
		}
		e := float32(math.Exp(float64(y)))
		dst[i] = e
		sum += float64(e)
	}
	return sum
}
