//go:build !purego

package fused

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
)

//go:generate go run -C ../_asm ./fused -out ../fused/fused_amd64.s -stubs ../fused/fused_amd64.go -pkg fused

// ahead is memory to fetch: the page itself where there is nothing to come.
func ahead(next, page []byte) *byte {
	if len(next) == 0 {
		return unsafe.SliceData(page)
	}
	return unsafe.SliceData(next)
}

func (k Kernels) qk(n int, w []float32, ld int, l *Layout, page []byte, q, sums []float32, next []byte) {
	wp, codes, scales := unsafe.SliceData(w), &page[l.Halves[quant.HalfK].Codes], &page[l.Halves[quant.HalfK].Scales]
	qp, sp, fetch, width := unsafe.SliceData(q), unsafe.SliceData(sums), ahead(next, page), l.Width
	bits := l.Halves[quant.HalfK].Bits
	switch k.level {
	case cpu.AVX2:
		switch {
		case n == 4 && bits == 4:
			qk4Int4AVX2(wp, ld, codes, width, scales, qp, sp, fetch)
		case n == 2 && bits == 4:
			qk2Int4AVX2(wp, ld, codes, width, scales, qp, sp, fetch)
		case n == 1 && bits == 4:
			qk1Int4AVX2(wp, ld, codes, width, scales, qp, sp, fetch)
		case n == 4 && bits == 8:
			qk4Int8AVX2(wp, ld, codes, width, scales, qp, sp, fetch)
		case n == 2 && bits == 8:
			qk2Int8AVX2(wp, ld, codes, width, scales, qp, sp, fetch)
		default:
			qk1Int8AVX2(wp, ld, codes, width, scales, qp, sp, fetch)
		}
	case cpu.AVX512:
		switch {
		case n == 4 && bits == 4:
			qk4Int4AVX512(wp, ld, codes, width, scales, qp, sp, fetch)
		case n == 2 && bits == 4:
			qk2Int4AVX512(wp, ld, codes, width, scales, qp, sp, fetch)
		case n == 1 && bits == 4:
			qk1Int4AVX512(wp, ld, codes, width, scales, qp, sp, fetch)
		case n == 4 && bits == 8:
			qk4Int8AVX512(wp, ld, codes, width, scales, qp, sp, fetch)
		case n == 2 && bits == 8:
			qk2Int8AVX512(wp, ld, codes, width, scales, qp, sp, fetch)
		default:
			qk1Int8AVX512(wp, ld, codes, width, scales, qp, sp, fetch)
		}
	default:
		genericQK(n, w, ld, l, page, q, sums)
	}
}

func (k Kernels) pv(n int, acc, w []float32, ld int, l *Layout, page, next []byte) {
	if k.level == cpu.Generic {
		genericPV(n, acc, w, ld, l, page)
		return
	}
	var fold [batch * pageTokens]float32
	var sums [batch]float32
	v := &l.Halves[quant.HalfV]
	stride := l.Width * v.Bits / 8
	for g := range l.Groups {
		scales, zeros := &page[v.Scales+2*g*pageTokens], &page[v.Zeros+2*g*pageTokens]
		if v.Bits == 4 {
			foldInt4AVX2(&fold[0], &sums[0], unsafe.SliceData(w), ld, scales, zeros, n)
		} else {
			foldInt8AVX2(&fold[0], &sums[0], unsafe.SliceData(w), ld, scales, zeros, n)
		}
		fetch := ahead(next, page)
		if at := g * pageTokens * stride / l.Groups; at < len(next) {
			fetch = &next[at]
		}
		k.group(n, &acc[g*groupWidth], l, &fold[0], &sums[0], &page[v.Codes+g*stride/l.Groups], stride, fetch)
	}
}

// group is PV of one group of channels.
func (k Kernels) group(n int, acc *float32, l *Layout, fold, sums *float32, codes *byte, stride int, fetch *byte) {
	width, bits := l.Width, l.Halves[quant.HalfV].Bits
	switch {
	case k.level == cpu.AVX2 && n == 4 && bits == 4:
		pv4Int4AVX2(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX2 && n == 2 && bits == 4:
		pv2Int4AVX2(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX2 && n == 1 && bits == 4:
		pv1Int4AVX2(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX2 && n == 4 && bits == 8:
		pv4Int8AVX2(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX2 && n == 2 && bits == 8:
		pv2Int8AVX2(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX2 && n == 1 && bits == 8:
		pv1Int8AVX2(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX512 && n == 4 && bits == 4:
		pv4Int4AVX512(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX512 && n == 2 && bits == 4:
		pv2Int4AVX512(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX512 && n == 1 && bits == 4:
		pv1Int4AVX512(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX512 && n == 4 && bits == 8:
		pv4Int8AVX512(acc, width, fold, sums, codes, stride, fetch)
	case k.level == cpu.AVX512 && n == 2 && bits == 8:
		pv2Int8AVX512(acc, width, fold, sums, codes, stride, fetch)
	default:
		pv1Int8AVX512(acc, width, fold, sums, codes, stride, fetch)
	}
}
