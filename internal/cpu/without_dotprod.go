//go:build nodotprod && arm64

package cpu

// dotProd is whether kernels may use it: see the package comment.
const dotProd = false
