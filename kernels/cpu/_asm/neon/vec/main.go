// Command vec generates kernels/cpu/vec's assembly for arm64.
package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

func main() {
	f := neon.Start()
	sumSquares(f)
	scale(f)
	multiply(f)
	add(f)
	ropeHalves(f)
	ropePairs(f)
	swiGLU(f)
	widen(f, "widenF16NEON", "float16", func(f *neon.Func, v neon.V) { f.FCVTL(neon.S4, v, v, false) })
	widen(f, "widenBF16NEON", "bfloat16", func(f *neon.Func, v neon.V) { f.SHLL16(v, v, false) })
	largest(f)
	find(f)
	groupMax(f)
	expSum(f)
	for _, n := range []int{8, 16, 32, 64, 128, 256} {
		rotate(f, n)
	}
	f.Write()
}
