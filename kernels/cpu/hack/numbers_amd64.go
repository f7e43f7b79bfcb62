//go:build !purego

package hack

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

func extremesWhole(x *float32, n int) (lo, hi float32) {
	return extremesAVX2(x, n)
}

func nearestWhole(codes *byte, x *float32, n int, lo, inv float32) int {
	return nearestAVX2(codes, x, n, lo, inv)
}

func foldWhole(dst, x *float32, scale, mins *float64, n int) float64 {
	return foldAVX2(dst, x, scale, mins, n)
}
