//go:build purego || (!amd64 && !arm64)

package exact

func (k Kernels) qk(n int, w []float32, ld int, q []float32, d, tokens int, rows Rows) {
	genericQK(n, w, ld, q, d, tokens, rows)
}

func (k Kernels) pv(n int, acc []float32, d int, w []float32, ld, tokens int, rows Rows) {
	genericPV(n, acc, d, w, ld, tokens, rows)
}

func (k Kernels) widen(dst, src []byte) { genericWiden(dst, src) }
