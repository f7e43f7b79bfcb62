//go:build !purego && (amd64 || arm64)

package hack

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
)

//go:generate go run -C ../_asm ./hack -out ../hack/hack_amd64.s -stubs ../hack/hack_amd64.go -pkg hack
//go:generate go run -C ../_asm ./neon/hack -out ../hack/hack_arm64.s -stubs ../hack/hack_arm64.go -pkg hack

// These do as much as goes in whole vectors, and report how much; the generic
// level does nothing. An architecture has one kernel for all of its levels: its
// file of numbers names it.

// whole is n down to a multiple of step, 0 at the generic level.
func (k Kernels) whole(n, step int) int {
	if k.level == cpu.Generic {
		return 0
	}
	return n / step * step
}

func (k Kernels) affine(acc []float64, dots []int32, scale, mins, sums []float64, x, y, z float64) int {
	n := k.whole(len(acc), 4)
	if n > 0 {
		affineWhole(unsafe.SliceData(acc), unsafe.SliceData(dots), unsafe.SliceData(scale), unsafe.SliceData(mins), unsafe.SliceData(sums), x, y, z, n)
	}
	return n
}

func (k Kernels) blend(acc, x []float64, a, b float64) int {
	n := k.whole(len(acc), 4)
	if n > 0 {
		blendWhole(unsafe.SliceData(acc), unsafe.SliceData(x), a, b, n)
	}
	return n
}

func (k Kernels) narrow(dst []float32, src []float64) int {
	n := k.whole(len(src), 4)
	if n > 0 {
		narrowWhole(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}

func (k Kernels) fold(dst, x []float32, scale, mins []float64) (sum float64, done int) {
	n := k.whole(len(x), 4)
	if n == 0 {
		n = len(x) &^ 3
		return genericFold(dst, x, scale, mins, n), n
	}
	return foldWhole(unsafe.SliceData(dst), unsafe.SliceData(x), unsafe.SliceData(scale), unsafe.SliceData(mins), n), n
}

func (k Kernels) widen(dst []float64, src []byte, number Number) int {
	n := k.whole(len(dst), 4)
	if n == 0 {
		return 0
	}
	to, from := unsafe.SliceData(dst), unsafe.SliceData(src)
	switch number {
	case Float16:
		widenF16Whole(to, from, n)
	case BFloat16:
		widenBF16Whole(to, from, n)
	case Uint8:
		widenU8Whole(to, from, n)
	case Uint16:
		widenU16Whole(to, from, n)
	}
	return n
}

// split parts the pairs of src if they come in fours.
func (k Kernels) split(a, b, src []float64) bool {
	n := k.whole(len(a), 4)
	if n == 0 || n != len(a) || len(b) < n || len(src) < 2*n {
		return false
	}
	splitWhole(unsafe.SliceData(a), unsafe.SliceData(b), unsafe.SliceData(src), n)
	return true
}
