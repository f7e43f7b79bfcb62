// Command hack generates kernels/cpu/hack's assembly for arm64.
package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

func main() {
	f := neon.Start()
	for _, nq := range []int{4, 2, 1} {
		for _, dot := range []bool{false, true} {
			qk(f, nq, dot)
			pv(f, nq, dot)
		}
	}
	affine(f)
	blend(f)
	widens(f)
	split(f)
	narrow(f)
	extremes(f)
	nearest(f)
	fold(f)
	f.Write()
}
