//go:build !purego

package hack

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
)

func (k Kernels) qk(n int, dots []int32, ld int, plane []byte, width int, q []byte, words, groups, shift int) {
	dp, pp, qp, stride := unsafe.SliceData(dots), unsafe.SliceData(plane), unsafe.SliceData(q), 2*width
	switch k.level {
	case cpu.AVX2:
		switch n {
		case 4:
			qk4AVX2(dp, ld, pp, stride, qp, width, words, groups, shift)
		case 2:
			qk2AVX2(dp, ld, pp, stride, qp, width, words, groups, shift)
		default:
			qk1AVX2(dp, ld, pp, stride, qp, width, words, groups, shift)
		}
	case cpu.AVX512:
		switch n {
		case 4:
			qk4AVX512(dp, ld, pp, stride, qp, width, words, groups, shift)
		case 2:
			qk2AVX512(dp, ld, pp, stride, qp, width, words, groups, shift)
		default:
			qk1AVX512(dp, ld, pp, stride, qp, width, words, groups, shift)
		}
	default:
		genericQK(n, dots, ld, plane, width, q, words, groups, shift)
	}
}

func (k Kernels) pv(n int, out []int32, ld int, plane []byte, width int, p []byte, ldp, quads, groups, shift int) {
	op, pp, wp := unsafe.SliceData(out), unsafe.SliceData(plane), unsafe.SliceData(p)
	switch k.level {
	case cpu.AVX2:
		switch n {
		case 4:
			pv4AVX2(op, ld, pp, width, wp, ldp, quads, groups, shift)
		case 2:
			pv2AVX2(op, ld, pp, width, wp, ldp, quads, groups, shift)
		default:
			pv1AVX2(op, ld, pp, width, wp, ldp, quads, groups, shift)
		}
	case cpu.AVX512:
		switch n {
		case 4:
			pv4AVX512(op, ld, pp, width, wp, ldp, quads, groups, shift)
		case 2:
			pv2AVX512(op, ld, pp, width, wp, ldp, quads, groups, shift)
		default:
			pv1AVX512(op, ld, pp, width, wp, ldp, quads, groups, shift)
		}
	default:
		genericPV(n, out, ld, plane, width, p, ldp, quads, groups, shift)
	}
}
