// Command codes generates the assembly of package kernels/cpu/codes.
package main

import (
	. "github.com/mmcloughlin/avo/build"
)

// rowStride is the package's Tokens: elements between two vectors' products or
// weights.
const rowStride = 256

func main() {
	ConstraintExpr("!purego")
	for _, nq := range []int{1, 2, 4} {
		productsAVX2(nq)
		sumsAVX2(nq)
		productsAVX512(nq)
		sumsAVX512(nq)
	}
	merge(false)
	merge(true)
	quantiseAVX2()
	widenAVX2()
	Generate()
}
