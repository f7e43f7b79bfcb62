//go:build purego || (!amd64 && !arm64)

package codes

import "github.com/terse-llm/terse/internal/cpu"

func supported(cpu.Level) cpu.Level { return cpu.Generic }

func (k *Kernels) products(dots *int32, q *int8, nq int, p *Planes, low bool, _ *Ahead) {
	genericProducts(dots, q, nq, p, low)
}

func (k *Kernels) sums(sums *int32, weights *uint8, nq int, p *Planes, _ *Ahead, add bool) {
	genericSums(sums, weights, nq, p, add)
}

func (k *Kernels) merge(m *Merge, out *float32, sums, low *int32, nq, stride, width, n int) {
	genericMerge(m, out, sums, low, nq, stride, width, n)
}

func (k *Kernels) maxAbs(x *float32, n int) float32 { return genericMaxAbs(x, n) }

func (k *Kernels) quantise(codes *int8, x *float32, n int, inv float32) int32 {
	return genericQuantise(codes, x, n, inv)
}

func (k *Kernels) widen(step, bias *float32, scale, zero *byte, n int, set uint64, f *factors) {
	genericWiden(step, bias, scale, zero, n, set, f)
}
