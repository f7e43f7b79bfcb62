package hack

import (
	"encoding/binary"
	"math"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// The arithmetic around the products: every step of it is rounded once, in one
// order, the same at every level.

// Affine corrects the integer products of one partition:
//
//	acc[i] += scale[i]·(x·dots[i] + y·sums[i]) + mins[i]·z
//
// for all of acc.
func (k Kernels) Affine(acc []float64, dots []int32, scale, mins, sums []float64, x, y, z float64) {
	n := len(acc)
	if len(dots) < n || len(scale) < n || len(mins) < n || len(sums) < n {
		panic("BUG: corrections beyond their slices")
	}
	done := k.affine(acc, dots, scale, mins, sums, x, y, z)
	for i := done; i < n; i++ { // conversions keep products from being fused with sums
		inner := float64(x*float64(dots[i])) + float64(y*sums[i])
		acc[i] += float64(scale[i]*inner) + float64(mins[i]*z)
	}
}

// Blend computes acc = a·acc + b·x.
func (k Kernels) Blend(acc, x []float64, a, b float64) {
	x = x[:len(acc)]
	for i := k.blend(acc, x, a, b); i < len(acc); i++ {
		acc[i] = float64(a*acc[i]) + float64(b*x[i])
	}
}

// Narrow rounds src to float32.
func (k Kernels) Narrow(dst []float32, src []float64) {
	dst = dst[:len(src)]
	for i := k.narrow(dst, src); i < len(src); i++ {
		dst[i] = float32(src[i])
	}
}

// Fold sets dst to x·scale, scale being exact in float32, and returns Σ x·mins.
func (k Kernels) Fold(dst, x []float32, scale, mins []float64) float64 {
	n := len(x)
	if len(dst) < n || len(scale) < n || len(mins) < n {
		panic("BUG: folding beyond its slices")
	}
	sum, done := k.fold(dst, x, scale, mins)
	for i := done; i < n; i++ {
		dst[i] = x[i] * float32(scale[i])
		sum += float64(float64(x[i]) * mins[i])
	}
	return sum
}

// genericFold is Fold of n elements, a multiple of four, summed in four lanes.
func genericFold(dst, x []float32, scale, mins []float64, n int) float64 {
	var sum [4]float64
	for i := range n {
		dst[i] = x[i] * float32(scale[i])
		sum[i%4] += float64(float64(x[i]) * mins[i])
	}
	return sum[0] + sum[2] + (sum[1] + sum[3])
}

// Number is a type of stored numbers.
type Number uint8

// The types: of mins and scales, and of sums of codes.
const (
	Float16 Number = iota
	BFloat16
	Uint8
	Uint16
)

func (n Number) bytes() int {
	if n == Uint8 {
		return 1
	}
	return 2
}

// Widen converts stored numbers.
func (k Kernels) Widen(dst []float64, src []byte, n Number) {
	if len(src) < len(dst)*n.bytes() {
		panic("BUG: widening beyond the source")
	}
	for i := k.widen(dst, src, n); i < len(dst); i++ {
		switch n {
		case Float16:
			dst[i] = float64(tensor.F16ToF32(binary.LittleEndian.Uint16(src[2*i:])))
		case BFloat16:
			dst[i] = float64(tensor.BF16ToF32(binary.LittleEndian.Uint16(src[2*i:])))
		case Uint8:
			dst[i] = float64(src[i])
		case Uint16:
			dst[i] = float64(binary.LittleEndian.Uint16(src[2*i:]))
		}
	}
}

// transpose turns src, [rows][columns], into dst, [columns][rows].
func (k Kernels) transpose(dst, src []float64, rows, columns int) {
	switch {
	case columns == 1:
		copy(dst, src[:rows])
	case columns == 2 && k.split(dst[:rows], dst[rows:2*rows], src[:2*rows]):
	default:
		for i, x := range src[:rows*columns] {
			dst[i%columns*rows+i/columns] = x
		}
	}
}

// affine is one partition of a vector in 8 bits: x ≈ scale·code + min. Assembly
// knows its layout.
type affine struct {
	scale, min float32
	sum        int32 // of the codes
}

// tiny is what a range is taken as 0 below.
const tiny = 1e-30

// coding is how some vectors are rounded: each by its own random stream, if not to
// nearest.
type coding struct {
	stochastic bool
	rounds     []quant.Rounding
	keys       []uint64 // of rounds
}

// resize makes room for n vectors.
func (c *coding) resize(n int, stochastic bool) {
	c.stochastic = stochastic
	c.rounds, c.keys = grow(c.rounds, n), grow(c.keys, n)
}

func (c *coding) set(v int, r quant.Rounding) { c.rounds[v], c.keys[v] = r, r.Key() }

// of is the coding of n of the vectors.
func (c *coding) of(v, n int) coding {
	return coding{c.stochastic, c.rounds[v : v+n], c.keys[v : v+n]}
}

// quantise codes n elements of each of c's vectors over their own range: vector i is
// x[i·ldx:], its codes go to codes[i·ldc:] and what they stand for to out[i·ldo].
// element and stride number the elements in the random streams.
func (k Kernels) quantise(c coding, out []affine, ldo int, codes []byte, ldc int, x []float32, ldx, n, element, stride int) {
	vectors := len(c.keys)
	if last := vectors - 1; last < 0 || n < 1 || ldo < 0 || ldc < 0 || ldx < 0 ||
		len(out) <= last*ldo || len(codes) < last*ldc+n || len(x) < last*ldx+n {
		panic("BUG: coding beyond vectors or codes")
	}
	if k.quantiseWhole(&c, out, ldo, codes, ldc, x, ldx, n, element, stride) {
		return
	}
	for v := range vectors {
		out[v*ldo] = k.quantiseOne(codes[v*ldc:], x[v*ldx:][:n], c.rounds[v], c.stochastic, element, stride)
	}
}

func (k Kernels) quantiseOne(codes []byte, x []float32, round quant.Rounding, stochastic bool, element, stride int) affine {
	lo, hi := k.extremes(x)
	a := affine{scale: (hi - lo) / 255, min: lo}
	if a.scale < tiny {
		a.scale = 1
	}
	inv := 1 / a.scale
	done := 0
	if !stochastic {
		done, a.sum = k.nearest(codes, x, lo, inv)
	}
	codes = codes[:len(x)]
	for i := done; i < len(x); i++ {
		code := round.Level((x[i]-lo)*inv, 255, element+i*stride)
		codes[i] = code
		a.sum += int32(code)
	}
	return a
}

// genericExtremes is the least and the largest of x, NaN if one is.
func genericExtremes(x []float32) (lo, hi float32) {
	lo, hi = float32(math.Inf(1)), float32(math.Inf(-1))
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}
