//go:build !purego

package codes

import (
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
)

func supported(l cpu.Level) cpu.Level {
	if l == cpu.NEON || l == cpu.DotProd {
		return l
	}
	return cpu.Generic
}

func (k *Kernels) products(dots *int32, q *int8, nq int, p *Planes, low bool, ahead *Ahead) {
	if k.Level == cpu.Generic {
		genericProducts(dots, q, nq, p, low)
		return
	}
	stride := ahead.stride(p, 32)
	for i := range p.Pages {
		to := (*int32)(unsafe.Add(unsafe.Pointer(dots), 4*i*p.Rows))
		plane, next := &p.Pages[i][p.Off], unsafe.SliceData(ahead.Pages[i])
		switch {
		case nq == 1 && k.Level == cpu.DotProd:
			products1DotProd(to, q, plane, p.Width, p.Rows, low, next, ahead.Off, stride)
		case nq == 2 && k.Level == cpu.DotProd:
			products2DotProd(to, q, plane, p.Width, p.Rows, low, next, ahead.Off, stride)
		case k.Level == cpu.DotProd:
			products4DotProd(to, q, plane, p.Width, p.Rows, low, next, ahead.Off, stride)
		case nq == 1:
			products1NEON(to, q, plane, p.Width, p.Rows, low, next, ahead.Off, stride)
		case nq == 2:
			products2NEON(to, q, plane, p.Width, p.Rows, low, next, ahead.Off, stride)
		default:
			products4NEON(to, q, plane, p.Width, p.Rows, low, next, ahead.Off, stride)
		}
	}
}

// sums sets or adds to the sums with the first page, and adds with the others.
func (k *Kernels) sums(sums *int32, weights *uint8, nq int, p *Planes, ahead *Ahead, add bool) {
	if k.Level == cpu.Generic {
		genericSums(sums, weights, nq, p, add)
		return
	}
	whole := ahead.stride(p, 32)
	half, quarter := whole/2, whole/4 // the plane is read twice, or four times
	for i := range p.Pages {
		w := (*uint8)(unsafe.Add(unsafe.Pointer(weights), i*p.Rows))
		plane, next := &p.Pages[i][p.Off], unsafe.SliceData(ahead.Pages[i])
		switch {
		case nq == 1 && k.Level == cpu.DotProd:
			sums1DotProd(sums, w, plane, p.Width, p.Rows, add, next, ahead.Off, whole)
		case nq == 2 && k.Level == cpu.DotProd:
			sums2DotProd(sums, w, plane, p.Width, p.Rows, add, next, ahead.Off, whole)
		case k.Level == cpu.DotProd:
			sums4DotProd(sums, w, plane, p.Width, p.Rows, add, next, ahead.Off, half)
		case nq == 1:
			sums1NEON(sums, w, plane, p.Width, p.Rows, add, next, ahead.Off, half)
		case nq == 2:
			sums2NEON(sums, w, plane, p.Width, p.Rows, add, next, ahead.Off, half)
		default:
			sums4NEON(sums, w, plane, p.Width, p.Rows, add, next, ahead.Off, quarter)
		}
		add = true
	}
}

func (k *Kernels) merge(m *Merge, out *float32, sums, low *int32, nq, stride, width, n int) {
	if k.Level == cpu.Generic {
		genericMerge(m, out, sums, low, nq, stride, width, n)
		return
	}
	mergeNEON(&m.Alpha[0], out, sums, low, nq, stride, width, n)
}

func (k *Kernels) maxAbs(x *float32, n int) float32 {
	if k.Level == cpu.Generic {
		return genericMaxAbs(x, n)
	}
	return maxAbsNEON(x, n)
}

func (k *Kernels) quantise(codes *int8, x *float32, n int, inv float32) int32 {
	if k.Level == cpu.Generic {
		return genericQuantise(codes, x, n, inv)
	}
	return int32(quantiseNEON(codes, x, n, inv))
}

func (k *Kernels) widen(step, bias *float32, scale, zero *byte, n int, set uint64, f *factors) {
	if k.Level == cpu.Generic {
		genericWiden(step, bias, scale, zero, n, set, f)
		return
	}
	widenNEON(step, bias, scale, zero, n, int(set), &f.step[0])
}
