//go:build purego || !amd64

package fused

func (k Kernels) qk(n int, w []float32, ld int, l *Layout, page []byte, q, sums []float32, _ []byte) {
	genericQK(n, w, ld, l, page, q, sums)
}

func (k Kernels) pv(n int, acc, w []float32, ld int, l *Layout, page, _ []byte) {
	genericPV(n, acc, w, ld, l, page)
}
