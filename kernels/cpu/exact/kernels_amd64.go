//go:build !purego

package exact

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/tensor"
)

func (k Kernels) qk(n int, w []float32, ld int, q []float32, d, tokens int, rows Rows) {
	wide := rows.Type == tensor.F32
	stride := rows.stride(d)
	wp, qp, data, next := unsafe.SliceData(w), unsafe.SliceData(q), unsafe.SliceData(rows.Data), rows.next()
	switch k.level {
	case cpu.AVX2:
		switch {
		case n == 4 && !wide:
			qk4F16AVX2(wp, ld, data, stride, qp, d, tokens, next)
		case n == 3 && !wide:
			qk3F16AVX2(wp, ld, data, stride, qp, d, tokens, next)
		case n == 2 && !wide:
			qk2F16AVX2(wp, ld, data, stride, qp, d, tokens, next)
		case !wide:
			qk1F16AVX2(wp, ld, data, stride, qp, d, tokens, next)
		case n == 4:
			qk4F32AVX2(wp, ld, data, stride, qp, d, tokens, next)
		case n == 3:
			qk3F32AVX2(wp, ld, data, stride, qp, d, tokens, next)
		case n == 2:
			qk2F32AVX2(wp, ld, data, stride, qp, d, tokens, next)
		default:
			qk1F32AVX2(wp, ld, data, stride, qp, d, tokens, next)
		}
		addQK(n, w, ld, q, d, d&^7, tokens, rows)
	case cpu.AVX512:
		switch {
		case n == 4 && !wide:
			qk4F16AVX512(wp, ld, data, stride, qp, d, tokens, next)
		case n == 3 && !wide:
			qk3F16AVX512(wp, ld, data, stride, qp, d, tokens, next)
		case n == 2 && !wide:
			qk2F16AVX512(wp, ld, data, stride, qp, d, tokens, next)
		case !wide:
			qk1F16AVX512(wp, ld, data, stride, qp, d, tokens, next)
		case n == 4:
			qk4F32AVX512(wp, ld, data, stride, qp, d, tokens, next)
		case n == 3:
			qk3F32AVX512(wp, ld, data, stride, qp, d, tokens, next)
		case n == 2:
			qk2F32AVX512(wp, ld, data, stride, qp, d, tokens, next)
		default:
			qk1F32AVX512(wp, ld, data, stride, qp, d, tokens, next)
		}
	default:
		genericQK(n, w, ld, q, d, tokens, rows)
	}
}

func (k Kernels) pv(n int, acc []float32, d int, w []float32, ld, tokens int, rows Rows) {
	wide := rows.Type == tensor.F32
	stride := rows.stride(d)
	ap, wp, data, next := unsafe.SliceData(acc), unsafe.SliceData(w), unsafe.SliceData(rows.Data), rows.next()
	switch k.level {
	case cpu.AVX2:
		switch {
		case n == 4 && !wide:
			pv4F16AVX2(ap, d, wp, ld, data, stride, tokens, next)
		case n == 3 && !wide:
			pv3F16AVX2(ap, d, wp, ld, data, stride, tokens, next)
		case n == 2 && !wide:
			pv2F16AVX2(ap, d, wp, ld, data, stride, tokens, next)
		case !wide:
			pv1F16AVX2(ap, d, wp, ld, data, stride, tokens, next)
		case n == 4:
			pv4F32AVX2(ap, d, wp, ld, data, stride, tokens, next)
		case n == 3:
			pv3F32AVX2(ap, d, wp, ld, data, stride, tokens, next)
		case n == 2:
			pv2F32AVX2(ap, d, wp, ld, data, stride, tokens, next)
		default:
			pv1F32AVX2(ap, d, wp, ld, data, stride, tokens, next)
		}
		addPV(n, acc, d, d&^7, w, ld, tokens, rows)
	case cpu.AVX512:
		switch {
		case n == 4 && !wide:
			pv4F16AVX512(ap, d, wp, ld, data, stride, tokens, next)
		case n == 3 && !wide:
			pv3F16AVX512(ap, d, wp, ld, data, stride, tokens, next)
		case n == 2 && !wide:
			pv2F16AVX512(ap, d, wp, ld, data, stride, tokens, next)
		case !wide:
			pv1F16AVX512(ap, d, wp, ld, data, stride, tokens, next)
		case n == 4:
			pv4F32AVX512(ap, d, wp, ld, data, stride, tokens, next)
		case n == 3:
			pv3F32AVX512(ap, d, wp, ld, data, stride, tokens, next)
		case n == 2:
			pv2F32AVX512(ap, d, wp, ld, data, stride, tokens, next)
		default:
			pv1F32AVX512(ap, d, wp, ld, data, stride, tokens, next)
		}
	default:
		genericPV(n, acc, d, w, ld, tokens, rows)
	}
}

func (k Kernels) widen(dst, src []byte) {
	done := 0
	if blocks := len(src) / 64; blocks > 0 {
		switch k.level {
		case cpu.AVX2:
			widenAVX2(unsafe.SliceData(dst), unsafe.SliceData(src), blocks)
			done = blocks * 64
		case cpu.AVX512:
			widenAVX512(unsafe.SliceData(dst), unsafe.SliceData(src), blocks)
			done = blocks * 64
		}
	}
	genericWiden(dst[2*done:], src[done:])
}
