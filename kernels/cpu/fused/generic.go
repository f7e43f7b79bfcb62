package fused

import (
	"encoding/binary"

	"github.com/terse-llm/terse/tensor"
)

func half(b []byte, i int) float32 { return tensor.F16ToF32(binary.LittleEndian.Uint16(b[2*i:])) }

// key is a code of K as the kernels see it: with 4 bits, times 256^m.
func (l *Layout) key(page []byte, t, c int) float32 {
	codes, run := page[l.K.Codes:], t/16*16*l.Width
	if l.Bits == 8 {
		return float32(int8(codes[run+16*c+t%16]))
	}
	word := binary.LittleEndian.Uint32(codes[run/2+c/8*64+t%16*4:])
	m := c % 8 / 2
	return float32(word >> (4 * (c % 2)) & (0xf << (8 * m)))
}

// value is a code of V.
func (l *Layout) value(page []byte, t, c int) float32 {
	codes := page[l.V.Codes:]
	if l.Bits == 8 {
		return float32(int8(codes[t*l.Width+c]))
	}
	k, j := c%groupWidth/8, c%8
	return float32(codes[t*l.Width/2+c/groupWidth*32+4*j+k/2] >> (4 * (k % 2)) & 0xf)
}

func genericQK(n int, w []float32, ld int, l *Layout, page []byte, q, sums []float32) {
	scales, zeros := page[l.K.Scales:], page[l.K.Zeros:]
	for t := range pageTokens {
		var score [batch]float32
		for g := range l.Groups {
			var dots [batch]float32
			for c := g * groupWidth; c < (g+1)*groupWidth; c++ {
				x := l.key(page, t, c)
				for i := range n {
					dots[i] += x * q[i*l.Width+c]
				}
			}
			for i := range n {
				score[i] += dots[i] * half(scales, g*pageTokens+t)
				if l.Bits == 4 {
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
	scales, zeros := page[l.V.Scales:], page[l.V.Zeros:]
	for t := range pageTokens {
		for g := range l.Groups {
			var fold, zero [batch]float32
			for i := range n {
				fold[i] = w[i*ld+t] * half(scales, g*pageTokens+t)
				if l.Bits == 4 {
					zero[i] = w[i*ld+t] * half(zeros, g*pageTokens+t)
				}
			}
			for c := g * groupWidth; c < (g+1)*groupWidth; c++ {
				x := l.value(page, t, c)
				for i := range n {
					acc[i*l.Width+c] += fold[i]*x + zero[i]
				}
			}
		}
	}
}
