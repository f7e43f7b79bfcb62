//go:build !purego

package hack

import "unsafe"

func affineWhole(acc *float64, dots *int32, scale, mins, sums *float64, x, y, z float64, n int) {
	affineNEON(acc, dots, scale, mins, sums, x, y, z, n)
}

func blendWhole(acc, x *float64, a, b float64, n int) {
	blendNEON(acc, x, a, b, n)
}

func widenF16Whole(dst *float64, src *byte, n int) {
	widenF16NEON(dst, src, n)
}

func widenBF16Whole(dst *float64, src *byte, n int) {
	widenBF16NEON(dst, src, n)
}

func widenU8Whole(dst *float64, src *byte, n int) {
	widenU8NEON(dst, src, n)
}

func widenU16Whole(dst *float64, src *byte, n int) {
	widenU16NEON(dst, src, n)
}

func splitWhole(a, b, src *float64, n int) {
	splitNEON(a, b, src, n)
}

func narrowWhole(dst *float32, src *float64, n int) {
	narrowNEON(dst, src, n)
}

func foldWhole(dst, x *float32, scale, mins *float64, n int) float64 {
	return foldNEON(dst, x, scale, mins, n)
}

// quantiseWhole leaves vectors to be coded one by one: their ranges and coding to
// nearest have kernels.
func (k Kernels) quantiseWhole(_ *coding, _ []affine, _ int, _ []byte, _ int, _ []float32, _, _, _, _ int) bool {
	return false
}

func (k Kernels) extremes(x []float32) (lo, hi float32) {
	n := k.whole(len(x), 8)
	if n == 0 {
		return genericExtremes(x)
	}
	lo, hi = extremesNEON(unsafe.SliceData(x), n)
	for _, v := range x[n:] {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

func (k Kernels) nearest(codes []byte, x []float32, lo, inv float32) (done int, sum int32) {
	n := k.whole(min(len(x), len(codes)), 32)
	if n == 0 {
		return 0, 0
	}
	return n, int32(nearestNEON(unsafe.SliceData(codes), unsafe.SliceData(x), n, lo, inv))
}

func (k Kernels) fetch(_ []byte) {}
