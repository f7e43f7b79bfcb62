//go:build amd64 && !noavx512 && !purego

package cpu

// avx512 is whether kernels may use it: see the package comment.
const avx512 = true
