//go:build purego || (!amd64 && !arm64)

package hack

func (k Kernels) qk(n int, dots []int32, ld int, plane []byte, width int, q []byte, words, groups, shift int) {
	genericQK(n, dots, ld, plane, width, q, words, groups, shift)
}

func (k Kernels) pv(n int, out []int32, ld int, plane []byte, width int, p []byte, ldp, quads, groups, shift int) {
	genericPV(n, out, ld, plane, width, p, ldp, quads, groups, shift)
}

// What follows leaves everything to the portable loops.

func (k Kernels) affine(_ []float64, _ []int32, _, _, _ []float64, _, _, _ float64) int { return 0 }

func (k Kernels) blend(_, _ []float64, _, _ float64) int { return 0 }

func (k Kernels) narrow(_ []float32, _ []float64) int { return 0 }

func (k Kernels) fold(dst, x []float32, scale, mins []float64) (sum float64, done int) {
	n := len(x) &^ 3
	return genericFold(dst, x, scale, mins, n), n
}

func (k Kernels) widen(_ []float64, _ []byte, _ Number) int { return 0 }

func (k Kernels) split(_, _, _ []float64) bool { return false }

func (k Kernels) extremes(x []float32) (lo, hi float32) { return genericExtremes(x) }

func (k Kernels) nearest(_ []byte, _ []float32, _, _ float32) (done int, sum int32) { return 0, 0 }

func (k Kernels) quantiseWhole(_ *coding, _ []affine, _ int, _ []byte, _ int, _ []float32, _, _, _, _ int) bool {
	return false
}

func (k Kernels) fetch(_ []byte) {}
