//go:build !purego

package vec

import "github.com/terse-llm/terse/internal/cpu"

// use takes the level's kernels.
func (k *Kernels) use(l cpu.Level) {
	switch l {
	case cpu.NEON, cpu.DotProd:
		k.sumSquares = sumSquaresNEON
		k.scale = scaleNEON
		k.multiply = multiplyNEON
		k.add = addNEON
		k.ropeHalves = ropeHalvesNEON
		k.ropePairs = ropePairsNEON
		k.swiGLU = swiGLUNEON
		k.widenF16 = widenF16NEON
		k.widenBF16 = widenBF16NEON
		k.largest = largestNEON
		k.find = findNEON
		k.groupMax = groupMaxNEON
		k.expSum = expSumNEON
		k.rotate = [maxBlock]rotateFunc{rotate8NEON, rotate16NEON, rotate32NEON, rotate64NEON, rotate128NEON, rotate256NEON}
	}
}
