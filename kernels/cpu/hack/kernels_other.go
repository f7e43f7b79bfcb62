//go:build purego || !amd64

package hack

func (k Kernels) qk(n int, dots []int32, ld int, plane []byte, width int, q []byte, words, groups, shift int) {
	genericQK(n, dots, ld, plane, width, q, words, groups, shift)
}

func (k Kernels) pv(n int, out []int32, ld int, plane []byte, width int, p []byte, ldp, quads, groups, shift int) {
	genericPV(n, out, ld, plane, width, p, ldp, quads, groups, shift)
}

func (k Kernels) affine(_ []float64, _ []int32, _, _, _ []float64, _, _, _ float64) int { return 0 }

func (k Kernels) blend(_, _ []float64, _, _ float64) int { return 0 }
