//go:build !purego

package codes

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
)

func accelerate(k *Kernels, l cpu.Level) {
	if l < cpu.AVX2 || l > cpu.AVX512 {
		return
	}
	k.Level = cpu.AVX2
	k.prefetch = prefetchLines
	k.products = productsByAVX2
	k.sums = sumsByAVX2
	k.merge = mergeByAVX2
	k.maxAbs = maxAbsAVX2
	k.quantise = quantiseAVX2
	k.widen = func(step, bias *float32, scale, zero *byte, n int, set uint64, f *Factors) {
		widenAVX2(step, bias, scale, zero, n, set, &f.Step[0])
	}
}

func productsByAVX2(dots *int32, q *int8, plane *byte, nq, width, rows int, low bool) {
	switch nq {
	case 1:
		products1AVX2(dots, q, plane, width, rows, low)
	case 2:
		products2AVX2(dots, q, plane, width, rows, low)
	default:
		products4AVX2(dots, q, plane, width, rows, low)
	}
}

func sumsByAVX2(sums *int32, p, plane *byte, nq, width, quads int) {
	switch nq {
	case 1:
		sums1AVX2(sums, p, plane, width, quads)
	case 2:
		sums2AVX2(sums, p, plane, width, quads)
	default:
		sums4AVX2(sums, p, plane, width, quads)
	}
}

func mergeByAVX2(m *Merge, out *float32, sums, low *int32, nq, stride, width, n int) {
	for v := range nq {
		mergeAVX2(out, sums, low, n, m.Alpha[v], m.Scale[v]*0.125, m.Centre[v], 12*m.Sum[v]+3*m.LowSum[v])
		if v+1 < nq {
			out = (*float32)(unsafe.Add(unsafe.Pointer(out), 4*stride))
			sums = (*int32)(unsafe.Add(unsafe.Pointer(sums), 4*width))
			if low != nil {
				low = (*int32)(unsafe.Add(unsafe.Pointer(low), 4*width))
			}
		}
	}
}
