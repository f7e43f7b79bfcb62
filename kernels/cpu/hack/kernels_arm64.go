//go:build !purego

package hack

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
)

func (k Kernels) qk(n int, dots []int32, ld int, plane []byte, width int, q []byte, words, groups, shift int) {
	dp, pp, qp, stride := unsafe.SliceData(dots), unsafe.SliceData(plane), unsafe.SliceData(q), 2*width
	switch {
	case k.level == cpu.Generic:
		genericQK(n, dots, ld, plane, width, q, words, groups, shift)
	case k.level == cpu.DotProd && n == 4:
		qk4DotProd(dp, ld, pp, stride, qp, width, words, groups, shift)
	case k.level == cpu.DotProd && n == 2:
		qk2DotProd(dp, ld, pp, stride, qp, width, words, groups, shift)
	case k.level == cpu.DotProd:
		qk1DotProd(dp, ld, pp, stride, qp, width, words, groups, shift)
	case n == 4:
		qk4NEON(dp, ld, pp, stride, qp, width, words, groups, shift)
	case n == 2:
		qk2NEON(dp, ld, pp, stride, qp, width, words, groups, shift)
	default:
		qk1NEON(dp, ld, pp, stride, qp, width, words, groups, shift)
	}
}

func (k Kernels) pv(n int, out []int32, ld int, plane []byte, width int, p []byte, ldp, quads, groups, shift int) {
	op, pp, wp := unsafe.SliceData(out), unsafe.SliceData(plane), unsafe.SliceData(p)
	switch {
	case k.level == cpu.Generic:
		genericPV(n, out, ld, plane, width, p, ldp, quads, groups, shift)
	case k.level == cpu.DotProd && n == 4:
		pv4DotProd(op, ld, pp, width, wp, ldp, quads, groups, shift)
	case k.level == cpu.DotProd && n == 2:
		pv2DotProd(op, ld, pp, width, wp, ldp, quads, groups, shift)
	case k.level == cpu.DotProd:
		pv1DotProd(op, ld, pp, width, wp, ldp, quads, groups, shift)
	case n == 4:
		pv4NEON(op, ld, pp, width, wp, ldp, quads, groups, shift)
	case n == 2:
		pv2NEON(op, ld, pp, width, wp, ldp, quads, groups, shift)
	default:
		pv1NEON(op, ld, pp, width, wp, ldp, quads, groups, shift)
	}
}
