package fused

import (
	"encoding/binary"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

func half(b []byte, i int) float32 { return tensor.F16ToF32(binary.LittleEndian.Uint16(b[2*i:])) }

// key is a code of K as the kernels see it: with 4 bits, times 256^m.
func key(l *Layout, page []byte, t, c int) float32 {
	if l.Halves[quant.HalfK].Bits == 8 {
		return float32(l.Code(page, quant.HalfK, t, c))
	}
	return float32(l.KeyWordAt(page, t, c) >> (4 * (c % 2)) & (0xf << (8 * (c % 8 / 2))))
}

// value is a code of V.
func value(l *Layout, page []byte, t, c int) float32 {
	return float32(l.Code(page, quant.HalfV, t, c))
}

func genericQK(n int, w []float32, ld int, l *Layout, page []byte, q, sums []float32) {
	scales, zeros := page[l.Halves[quant.HalfK].Scales:], page[l.Halves[quant.HalfK].Zeros:]
	for t := range pageTokens {
		var score [batch]float32
		for g := range l.Groups {
			var dots [batch]float32
			for c := g * groupWidth; c < (g+1)*groupWidth; c++ {
				x := key(l, page, t, c)
				for i := range n {
					dots[i] += x * q[i*l.Width+c]
				}
			}
			for i := range n {
				score[i] += dots[i] * half(scales, g*pageTokens+t)
				if l.Halves[quant.HalfK].Bits == 4 {
					score[i] += sums[g*batch+i] * half(zeros, g*pageTokens+t)
				}
			}
		}
		for i := range n {
			w[i*ld+t] = score[i]
		}
	}
}

func genericPV(n int, acc, w []float32, ld int, l *Layout, page []byte) {
	scales, zeros := page[l.Halves[quant.HalfV].Scales:], page[l.Halves[quant.HalfV].Zeros:]
	for t := range pageTokens {
		for g := range l.Groups {
			var fold, zero [batch]float32
			for i := range n {
				fold[i] = w[i*ld+t] * half(scales, g*pageTokens+t)
				if l.Halves[quant.HalfV].Bits == 4 {
					zero[i] = w[i*ld+t] * half(zeros, g*pageTokens+t)
				}
			}
			for c := g * groupWidth; c < (g+1)*groupWidth; c++ {
				x := value(l, page, t, c)
				for i := range n {
					acc[i*l.Width+c] += fold[i]*x + zero[i]
				}
			}
		}
	}
}
