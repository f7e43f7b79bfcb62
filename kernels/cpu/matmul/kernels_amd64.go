//go:build !purego

package matmul

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/tensor"
)

func native(l cpu.Level) *Kernels {
	switch l {
	case cpu.AVX2:
		return avx2()
	case cpu.AVX512:
		return avx512()
	}
	return nil
}

func avx2() *Kernels {
	return &Kernels{
		level: cpu.AVX2,
		float: map[tensor.DType][]tile{
			tensor.F32:  {nil, tileF32x1AVX2, tileF32x2AVX2, tileF32x3AVX2, tileF32x4AVX2, tileF32x5AVX2, tileF32x6AVX2},
			tensor.F16:  {nil, tileF16x1AVX2, tileF16x2AVX2, tileF16x3AVX2, tileF16x4AVX2, tileF16x5AVX2, tileF16x6AVX2},
			tensor.BF16: {nil, tileBF16x1AVX2, tileBF16x2AVX2, tileBF16x3AVX2, tileBF16x4AVX2, tileBF16x5AVX2, tileBF16x6AVX2},
		},
		integer: map[tensor.DType][]tile{
			tensor.Q8_0: {nil, tileQ80x1AVX2, tileQ80x2AVX2, tileQ80x3AVX2, tileQ80x4AVX2},
			tensor.Q4_0: {nil, tileQ40x1AVX2, tileQ40x2AVX2, tileQ40x3AVX2, tileQ40x4AVX2},
			tensor.Q4_K: {nil, tileQ4Kx1AVX2, tileQ4Kx2AVX2, tileQ4Kx3AVX2, tileQ4Kx4AVX2},
			tensor.Q5_K: {nil, tileQ5Kx1AVX2, tileQ5Kx2AVX2, tileQ5Kx3AVX2, tileQ5Kx4AVX2},
			tensor.Q6_K: {nil, tileQ6Kx1AVX2, tileQ6Kx2AVX2, tileQ6Kx3AVX2, tileQ6Kx4AVX2},
		},
		pair:       map[tensor.DType]tile{tensor.BF16: pairBF16AVX2, tensor.F16: pairF16AVX2},
		interleave: interleaveAVX2, encode: encodeAVX2,
		excess:    0x80,
		floatStep: 256, intStep: 512, floatOnce: 3, intOnce: 1,
	}
}

func avx512() *Kernels {
	return &Kernels{
		level: cpu.AVX512,
		float: map[tensor.DType][]tile{
			tensor.F32:  {nil, tileF32x1AVX512, tileF32x2AVX512, tileF32x3AVX512, tileF32x4AVX512, tileF32x5AVX512, tileF32x6AVX512, tileF32x7AVX512, tileF32x8AVX512, tileF32x9AVX512, tileF32x10AVX512, tileF32x11AVX512, tileF32x12AVX512},
			tensor.F16:  {nil, tileF16x1AVX512, tileF16x2AVX512, tileF16x3AVX512, tileF16x4AVX512, tileF16x5AVX512, tileF16x6AVX512, tileF16x7AVX512, tileF16x8AVX512, tileF16x9AVX512, tileF16x10AVX512, tileF16x11AVX512, tileF16x12AVX512},
			tensor.BF16: {nil, tileBF16x1AVX512, tileBF16x2AVX512, tileBF16x3AVX512, tileBF16x4AVX512, tileBF16x5AVX512, tileBF16x6AVX512, tileBF16x7AVX512, tileBF16x8AVX512, tileBF16x9AVX512, tileBF16x10AVX512, tileBF16x11AVX512, tileBF16x12AVX512},
		},
		integer: map[tensor.DType][]tile{
			tensor.Q8_0: {nil, tileQ80x1AVX512, tileQ80x2AVX512, tileQ80x3AVX512, tileQ80x4AVX512, tileQ80x5AVX512, tileQ80x6AVX512},
			tensor.Q4_0: {nil, tileQ40x1AVX512, tileQ40x2AVX512, tileQ40x3AVX512, tileQ40x4AVX512, tileQ40x5AVX512, tileQ40x6AVX512},
			tensor.Q4_K: {nil, tileQ4Kx1AVX512, tileQ4Kx2AVX512, tileQ4Kx3AVX512, tileQ4Kx4AVX512, tileQ4Kx5AVX512, tileQ4Kx6AVX512},
			tensor.Q5_K: {nil, tileQ5Kx1AVX512, tileQ5Kx2AVX512, tileQ5Kx3AVX512, tileQ5Kx4AVX512, tileQ5Kx5AVX512, tileQ5Kx6AVX512},
			tensor.Q6_K: {nil, tileQ6Kx1AVX512, tileQ6Kx2AVX512, tileQ6Kx3AVX512, tileQ6Kx4AVX512, tileQ6Kx5AVX512, tileQ6Kx6AVX512},
		},
		pair:       map[tensor.DType]tile{tensor.BF16: pairBF16AVX512, tensor.F16: pairF16AVX512, tensor.Q4_0: pairQ40AVX512, tensor.Q4_K: pairQ4KAVX512, tensor.Q5_K: pairQ5KAVX512, tensor.Q6_K: pairQ6KAVX512},
		interleave: interleaveAVX2, encode: encodeAVX2,
		excess:    0x80,
		floatStep: 512, intStep: 2048, floatOnce: 12, intOnce: 6,
	}
}
