//go:build !purego

package hack

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
)

// 256 bits are as good as 512 for these.

func affineWhole(acc *float64, dots *int32, scale, mins, sums *float64, x, y, z float64, n int) {
	affineAVX2(acc, dots, scale, mins, sums, x, y, z, n)
}

func blendWhole(acc, x *float64, a, b float64, n int) {
	blendAVX2(acc, x, a, b, n)
}

func widenF16Whole(dst *float64, src *byte, n int) {
	widenF16AVX2(dst, src, n)
}

func widenBF16Whole(dst *float64, src *byte, n int) {
	widenBF16AVX2(dst, src, n)
}

func widenU8Whole(dst *float64, src *byte, n int) {
	widenU8AVX2(dst, src, n)
}

func widenU16Whole(dst *float64, src *byte, n int) {
	widenU16AVX2(dst, src, n)
}

func splitWhole(a, b, src *float64, n int) {
	splitAVX2(a, b, src, n)
}

func narrowWhole(dst *float32, src *float64, n int) {
	narrowAVX2(dst, src, n)
}

func foldWhole(dst, x *float32, scale, mins *float64, n int) float64 {
	return foldAVX2(dst, x, scale, mins, n)
}

// quantiseWhole codes vectors of whole steps.
func (k Kernels) quantiseWhole(c *coding, out []affine, ldo int, codes []byte, ldc int, x []float32, ldx, n, element, stride int) bool {
	if k.level == cpu.Generic || n%32 != 0 {
		return false
	}
	op, cp, xp := &unsafe.SliceData(out).scale, unsafe.SliceData(codes), unsafe.SliceData(x)
	var keys *uint64 // to nearest
	if c.stochastic {
		keys = unsafe.SliceData(c.keys)
	}
	if k.level == cpu.AVX512 {
		quantiseAVX512(op, ldo, cp, ldc, xp, ldx, len(c.keys), n, keys, element, stride)
	} else {
		quantiseAVX2(op, ldo, cp, ldc, xp, ldx, len(c.keys), n, keys, element, stride)
	}
	return true
}

func (k Kernels) extremes(x []float32) (lo, hi float32) { return genericExtremes(x) }

func (k Kernels) nearest(_ []byte, _ []float32, _, _ float32) (done int, sum int32) { return 0, 0 }

// fetch has memory fetched that is read soon.
func (k Kernels) fetch(b []byte) {
	if k.level != cpu.Generic && len(b) > 0 {
		fetchLines(&b[0], len(b))
	}
}
