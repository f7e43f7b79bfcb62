package matmul

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/tensor"
)

//go:generate go run -C ../_asm ./matmul -level avx2 -out ../matmul/avx2_amd64.s -stubs ../matmul/avx2_amd64.go -pkg matmul
//go:generate go run -C ../_asm ./matmul -level avx512 -out ../matmul/avx512_amd64.s -stubs ../matmul/avx512_amd64.go -pkg matmul
//go:generate go run -C ../_asm ./neon/matmul -out ../matmul/matmul_arm64.s -stubs ../matmul/matmul_arm64.go -pkg matmul

// panel is the number of outputs that are computed together.
const panel = 32

// tile computes m rows (m is its place in a table) by 32 outputs:
//
//	y    first of the outputs, row r at y[r·ldy]
//	x    the group's activations from some k on, w the panel's weights from there
//	n    steps of k (plain weights; only the last of BF16 may be odd), blocks of 32 (Q8_0, Q4_0) or of 256 (K-quants); > 0
//	load whether sums start from y; from zero otherwise
//
// It reads and writes exactly these, whatever the values.
type tile func(y *float32, ldy int, x, w *byte, n int, load bool)

// Kernels is the micro-kernels of one level.
type Kernels struct {
	level cpu.Level
	// float and integer are the tiles of each dtype by the number of rows, from
	// 1 to the largest group; place 0 is nil. All dtypes of a kind of
	// activations have the same number.
	float, integer map[tensor.DType][]tile
	// pair computes one row by the 64 outputs of two panels, which are stride
	// bytes apart (in the place of ldy): two streams of weights keep the memory
	// busier than one. Nil, or nil for a dtype, where there is no such kernel.
	pair map[tensor.DType]tile
	// interleave and encode write one row of a group of m from n inputs, in whole
	// blocks for encode; dst is the row's first dword.
	interleave, encode func(dst *byte, m int, src *float32, n int)
	// excess is what a byte of Q8_0 is stored xored with.
	excess byte
	// floatStep and intStep are how much of k, in elements, one pass over the
	// rows takes, so that a panel's part stays in the L1 cache. Whole blocks of
	// 256 for integers.
	floatStep, intStep int
	// floatOnce and intOnce are up to how many rows a tile reads its weights
	// once only.
	floatOnce, intOnce int
}

// For is the kernels of a level, which must be one of cpu.Levels.
func For(l cpu.Level) *Kernels {
	if k := native(l); k != nil {
		return k
	}
	return generic()
}

// Kind is a form of activations. Matrices of one kind, level and inner dimension
// can share them.
type Kind uint8

const (
	Float Kind = iota // for F32, F16, BF16
	Int8              // for block-quantised weights
)

func kindOf(d tensor.DType) Kind {
	switch d {
	case tensor.F32, tensor.F16, tensor.BF16:
		return Float
	}
	return Int8
}

// rows is the largest group of a kind.
func (k *Kernels) rows(kind Kind) int {
	if kind == Float {
		return len(k.float[tensor.F32]) - 1
	}
	return len(k.integer[tensor.Q8_0]) - 1
}

// step is how much of k one pass takes.
func (k *Kernels) step(kind Kind) int {
	if kind == Float {
		return k.floatStep
	}
	return k.intStep
}

// once is up to how many rows a tile reads its weights once.
func (k *Kernels) once(kind Kind) int {
	if kind == Float {
		return k.floatOnce
	}
	return k.intOnce
}
