//go:build !purego

package exact

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/tensor"
)

func (k Kernels) qk(n int, w []float32, ld int, q []float32, d, tokens int, rows Rows) {
	if k.level == cpu.Generic {
		genericQK(n, w, ld, q, d, tokens, rows)
		return
	}
	wide := rows.Type == tensor.F32
	stride := rows.stride(d)
	wp, qp, data, next := unsafe.SliceData(w), unsafe.SliceData(q), unsafe.SliceData(rows.Data), rows.next()
	switch {
	case n == 4 && !wide:
		qk4F16NEON(wp, ld, data, stride, qp, d, tokens, next)
	case n == 3 && !wide:
		qk3F16NEON(wp, ld, data, stride, qp, d, tokens, next)
	case n == 2 && !wide:
		qk2F16NEON(wp, ld, data, stride, qp, d, tokens, next)
	case !wide:
		qk1F16NEON(wp, ld, data, stride, qp, d, tokens, next)
	case n == 4:
		qk4F32NEON(wp, ld, data, stride, qp, d, tokens, next)
	case n == 3:
		qk3F32NEON(wp, ld, data, stride, qp, d, tokens, next)
	case n == 2:
		qk2F32NEON(wp, ld, data, stride, qp, d, tokens, next)
	default:
		qk1F32NEON(wp, ld, data, stride, qp, d, tokens, next)
	}
	addQK(n, w, ld, q, d, d&^3, tokens, rows)
}

func (k Kernels) pv(n int, acc []float32, d int, w []float32, ld, tokens int, rows Rows) {
	if k.level == cpu.Generic {
		genericPV(n, acc, d, w, ld, tokens, rows)
		return
	}
	wide := rows.Type == tensor.F32
	stride := rows.stride(d)
	ap, wp, data, next := unsafe.SliceData(acc), unsafe.SliceData(w), unsafe.SliceData(rows.Data), rows.next()
	switch {
	case n == 4 && !wide:
		pv4F16NEON(ap, d, wp, ld, data, stride, tokens, next)
	case n == 3 && !wide:
		pv3F16NEON(ap, d, wp, ld, data, stride, tokens, next)
	case n == 2 && !wide:
		pv2F16NEON(ap, d, wp, ld, data, stride, tokens, next)
	case !wide:
		pv1F16NEON(ap, d, wp, ld, data, stride, tokens, next)
	case n == 4:
		pv4F32NEON(ap, d, wp, ld, data, stride, tokens, next)
	case n == 3:
		pv3F32NEON(ap, d, wp, ld, data, stride, tokens, next)
	case n == 2:
		pv2F32NEON(ap, d, wp, ld, data, stride, tokens, next)
	default:
		pv1F32NEON(ap, d, wp, ld, data, stride, tokens, next)
	}
	addPV(n, acc, d, d&^3, w, ld, tokens, rows)
}

func (k Kernels) widen(dst, src []byte) {
	done := 0
	if blocks := len(src) / 64; blocks > 0 && k.level != cpu.Generic {
		widenNEON(unsafe.SliceData(dst), unsafe.SliceData(src), blocks)
		done = blocks * 64
	}
	genericWiden(dst[2*done:], src[done:])
}
