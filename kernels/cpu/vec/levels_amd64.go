//go:build !purego

package vec

import "github.com/terse-llm/terse/internal/cpu"

// use takes the level's kernels.
func (k *Kernels) use(l cpu.Level) {
	switch l {
	case cpu.AVX2:
		k.useAVX2()
	case cpu.AVX512:
		k.useAVX512()
	}
}

func (k *Kernels) useAVX2() {
	k.sumSquares = sumSquaresAVX2
	k.scale = scaleAVX2
	k.multiply = multiplyAVX2
	k.add = addAVX2
	k.ropeHalves = ropeHalvesAVX2
	k.ropePairs = ropePairsAVX2
	k.swiGLU = swiGLUAVX2
	k.widenF16 = widenF16AVX2
	k.widenBF16 = widenBF16AVX2
	k.largest = largestAVX2
	k.find = findAVX2
	k.groupMax = groupMaxAVX2
	k.expSum = expSumAVX2
	k.rotate = [maxBlock]rotateFunc{rotate8AVX2, rotate16AVX2, rotate32AVX2, rotate64AVX2, rotate128AVX2, rotate256AVX2}
}

func (k *Kernels) useAVX512() {
	k.sumSquares = sumSquaresAVX512
	k.scale = scaleAVX512
	k.multiply = multiplyAVX512
	k.add = addAVX512
	k.ropeHalves = ropeHalvesAVX512
	k.ropePairs = ropePairsAVX512
	k.swiGLU = swiGLUAVX512
	k.widenF16 = widenF16AVX512
	k.widenBF16 = widenBF16AVX512
	k.largest = largestAVX512
	k.find = findAVX512
	k.groupMax = groupMaxAVX512
	k.expSum = expSumAVX512
	k.rotate = [maxBlock]rotateFunc{rotate8AVX2, rotate16AVX512, rotate32AVX512, rotate64AVX512, rotate128AVX512, rotate256AVX512}
}
