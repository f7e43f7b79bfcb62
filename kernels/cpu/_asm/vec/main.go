// Command vec generates kernels/cpu/vec's assembly.
package main

import (
	. "github.com/mmcloughlin/avo/build"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

func main() {
	ConstraintExpr("!purego")
	for _, s := range lib.ISAs {
		sumSquares(s)
		scale(s)
		add(s)
		ropeHalves(s)
		ropePairs(s)
		swiGLU(s)
		widenF16(s)
		widenBF16(s)
		largest(s)
		find(s)
		groupMax(s)
		expSum(s)
		multiply(s)
		for _, n := range []int{8, 16, 32, 64, 128, 256} {
			rotate(s, n)
		}
	}
	Generate()
}
