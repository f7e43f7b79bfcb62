//go:build !purego

package codes

import "github.com/terse-llm/terse/internal/cpu"

// Calls are direct, so that nothing that they point to has to live on the heap.

func supported(l cpu.Level) cpu.Level {
	if l == cpu.AVX2 || l == cpu.AVX512 {
		return l
	}
	return cpu.Generic
}

func (k *Kernels) products(dots *int32, q *int8, nq int, p *Planes, low bool, ahead *Ahead) {
	switch k.Level {
	case cpu.AVX512:
		stride := ahead.stride(p, 64)
		switch nq {
		case 1:
			products1AVX512(dots, q, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, low)
		case 2:
			products2AVX512(dots, q, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, low)
		default:
			products4AVX512(dots, q, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, low)
		}
	case cpu.AVX2:
		stride := ahead.stride(p, 32)
		switch nq {
		case 1:
			products1AVX2(dots, q, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, low)
		case 2:
			products2AVX2(dots, q, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, low)
		default:
			products4AVX2(dots, q, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, low)
		}
	default:
		genericProducts(dots, q, nq, p, low)
	}
}

func (k *Kernels) sums(sums *int32, weights *uint8, nq int, p *Planes, ahead *Ahead, add bool) {
	switch k.Level {
	case cpu.AVX512:
		stride := ahead.stride(p, 64)
		switch nq {
		case 1:
			sums1AVX512(sums, weights, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, add)
		case 2:
			sums2AVX512(sums, weights, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, add)
		default:
			sums4AVX512(sums, weights, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, add)
		}
	case cpu.AVX2:
		stride := ahead.stride(p, 16)
		switch nq {
		case 1:
			sums1AVX2(sums, weights, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, add)
		case 2:
			sums2AVX2(sums, weights, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, add)
		default:
			sums4AVX2(sums, weights, &p.Pages[0], len(p.Pages), p.Off, p.Width, p.Rows, &ahead.Pages[0], ahead.Off, stride, add)
		}
	default:
		genericSums(sums, weights, nq, p, add)
	}
}

func (k *Kernels) merge(m *Merge, out *float32, sums, low *int32, nq, stride, width, n int) {
	switch k.Level {
	case cpu.AVX512:
		mergeAVX512(&m.Alpha[0], out, sums, low, nq, stride, width, n)
	case cpu.AVX2:
		mergeAVX2(&m.Alpha[0], out, sums, low, nq, stride, width, n)
	default:
		genericMerge(m, out, sums, low, nq, stride, width, n)
	}
}

func (k *Kernels) maxAbs(x *float32, n int) float32 {
	if k.Level == cpu.Generic {
		return genericMaxAbs(x, n)
	}
	return maxAbsAVX2(x, n)
}

func (k *Kernels) quantise(codes *int8, x *float32, n int, inv float32) int32 {
	if k.Level == cpu.Generic {
		return genericQuantise(codes, x, n, inv)
	}
	return quantiseAVX2(codes, x, n, inv)
}

func (k *Kernels) widen(step, bias *float32, scale, zero *byte, n int, set uint64, f *factors) {
	if k.Level == cpu.Generic {
		genericWiden(step, bias, scale, zero, n, set, f)
		return
	}
	widenAVX2(step, bias, scale, zero, n, set, &f.step[0])
}
