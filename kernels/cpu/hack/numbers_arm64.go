//go:build !purego

package hack

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

func extremesWhole(x *float32, n int) (lo, hi float32) {
	return extremesNEON(x, n)
}

func nearestWhole(codes *byte, x *float32, n int, lo, inv float32) int {
	return nearestNEON(codes, x, n, lo, inv)
}

func foldWhole(dst, x *float32, scale, mins *float64, n int) float64 {
	return foldNEON(dst, x, scale, mins, n)
}
