//go:build !noavx512 && amd64

package cpu

// avx512 is whether kernels may use it: see the package comment.
const avx512 = true
