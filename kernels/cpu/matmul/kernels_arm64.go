//go:build !purego

package matmul

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/tensor"
)

func native(l cpu.Level) *Kernels {
	k := &Kernels{
		level: l,
		float: map[tensor.DType][]tile{
			tensor.F32:  {nil, tileF32x1NEON, tileF32x2NEON, tileF32x3NEON, tileF32x4NEON, tileF32x5NEON, tileF32x6NEON},
			tensor.F16:  {nil, tileF16x1NEON, tileF16x2NEON, tileF16x3NEON, tileF16x4NEON, tileF16x5NEON, tileF16x6NEON},
			tensor.BF16: {nil, tileBF16x1NEON, tileBF16x2NEON, tileBF16x3NEON, tileBF16x4NEON, tileBF16x5NEON, tileBF16x6NEON},
		},
		interleave: interleaveNEON, encode: encodeNEON,
		floatStep: 256, intStep: 512, floatOnce: 3, intOnce: 1,
	}
	switch l {
	case cpu.NEON:
		k.integer = map[tensor.DType][]tile{
			tensor.Q8_0: {nil, tileQ80x1NEON, tileQ80x2NEON, tileQ80x3NEON, tileQ80x4NEON},
			tensor.Q4_0: {nil, tileQ40x1NEON, tileQ40x2NEON, tileQ40x3NEON, tileQ40x4NEON},
			tensor.Q4_K: {nil, tileQ4Kx1NEON, tileQ4Kx2NEON, tileQ4Kx3NEON, tileQ4Kx4NEON},
			tensor.Q5_K: {nil, tileQ5Kx1NEON, tileQ5Kx2NEON, tileQ5Kx3NEON, tileQ5Kx4NEON},
			tensor.Q6_K: {nil, tileQ6Kx1NEON, tileQ6Kx2NEON, tileQ6Kx3NEON, tileQ6Kx4NEON},
		}
		return k
	case cpu.DotProd:
		k.integer = map[tensor.DType][]tile{
			tensor.Q8_0: {nil, tileQ80x1DotProd, tileQ80x2DotProd, tileQ80x3DotProd, tileQ80x4DotProd, tileQ80x5DotProd, tileQ80x6DotProd},
			tensor.Q4_0: {nil, tileQ40x1DotProd, tileQ40x2DotProd, tileQ40x3DotProd, tileQ40x4DotProd, tileQ40x5DotProd, tileQ40x6DotProd},
			tensor.Q4_K: {nil, tileQ4Kx1DotProd, tileQ4Kx2DotProd, tileQ4Kx3DotProd, tileQ4Kx4DotProd, tileQ4Kx5DotProd, tileQ4Kx6DotProd},
			tensor.Q5_K: {nil, tileQ5Kx1DotProd, tileQ5Kx2DotProd, tileQ5Kx3DotProd, tileQ5Kx4DotProd, tileQ5Kx5DotProd, tileQ5Kx6DotProd},
			tensor.Q6_K: {nil, tileQ6Kx1DotProd, tileQ6Kx2DotProd, tileQ6Kx3DotProd, tileQ6Kx4DotProd, tileQ6Kx5DotProd, tileQ6Kx6DotProd},
		}
		return k
	}
	return nil
}
