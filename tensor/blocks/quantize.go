package blocks

import (
	"encoding/binary"
	"math"

	"github.com/terse-llm/terse/tensor"
)

// Quantize writes src as elements of type dt into dst, whose sizes must agree
// as for Dequantize. Every value goes to the nearest code under scales taken
// from the range of its block; src must be finite.
func Quantize(dst []byte, dt tensor.DType, src []float32) {
	check(len(src), dt, len(dst))
	switch dt {
	case tensor.F32:
		for i, x := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
		}
	case tensor.F16:
		for i, x := range src {
			tensor.PutF16(dst, i, x)
		}
	case tensor.BF16:
		for i, x := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], tensor.F32ToBF16(x))
		}
	case tensor.Q8_0:
		each(src, dst, dt, writeQ8_0)
	case tensor.Q4_0:
		each(src, dst, dt, writeQ4_0)
	case tensor.Q4_K:
		each(src, dst, dt, func(x []float32, b []byte) { writeMin(x, b, 15) })
	case tensor.Q5_K:
		each(src, dst, dt, func(x []float32, b []byte) { writeMin(x, b, 31) })
	case tensor.Q6_K:
		each(src, dst, dt, writeQ6_K)
	}
}

// code is x in steps of d, to nearest within [lo, hi]. A zero step has only
// the code of zero.
func code(x, d, lo, hi float32) int {
	if d == 0 {
		return 0
	}
	return int(min(max(math.RoundToEven(float64(x)/float64(d)), float64(lo)), float64(hi)))
}

// putScale stores d as half i of b and returns what a reader will see, so that
// codes are chosen for the scale they are read with.
func putScale(b []byte, i int, d float32) float32 {
	tensor.PutF16(b, i, min(max(d, -65504), 65504))
	return tensor.GetF16(b, i)
}

func writeQ8_0(x []float32, b []byte) {
	d := putScale(b, 0, largest(x)/127)
	for i, v := range x {
		b[2+i] = byte(int8(code(v, d, -127, 127)))
	}
}

// writeQ4_0 lets the value of largest magnitude have code -8, the only code
// without a counterpart, whatever its sign.
func writeQ4_0(x []float32, b []byte) {
	top := float32(0)
	for _, v := range x {
		if abs(v) > abs(top) {
			top = v
		}
	}
	d := putScale(b, 0, top/-8)
	for i := range 16 {
		b[2+i] = byte(code(x[i], d, -8, 7)+8) | byte(code(x[i+16], d, -8, 7)+8)<<4
	}
}

// writeMin writes Q4_K (top 15) or Q5_K (top 31): per 32 values a scale and a
// minimum at or below zero, both in 6 bits of the block's.
func writeMin(x []float32, b []byte, top float32) {
	var scale, floor [8]float32
	for j := range 8 {
		lo, hi := float32(0), float32(0)
		for _, v := range x[32*j : 32*j+32] {
			lo, hi = min(lo, v), max(hi, v)
		}
		scale[j], floor[j] = (hi-lo)/top, -lo
	}
	d, m := putScale(b, 0, largest(scale[:])/63), putScale(b, 1, largest(floor[:])/63)
	packed, qs := b[4:16], b[len(b)-128:]
	high := b[16 : len(b)-128] // empty for Q4_K
	clear(packed)
	clear(high)
	for j := range 8 {
		s, f := code(scale[j], d, 0, 63), code(floor[j], m, 0, 63)
		putKScale(packed, j, byte(s), byte(f))
		step, shift := d*float32(s), m*float32(f)
		for i, v := range x[32*j : 32*j+32] {
			q := byte(code(v+shift, step, 0, top))
			at := &qs[j/2*32+i]
			if j%2 == 0 {
				*at = q & 15
			} else {
				*at |= q << 4
			}
			if len(high) > 0 {
				high[i] |= q >> 4 << j
			}
		}
	}
}

// putKScale is the inverse of KScale on zeroed bytes.
func putKScale(p []byte, j int, scale, minimum byte) {
	if j < 4 {
		p[j] |= scale
		p[j+4] |= minimum
		return
	}
	p[j+4] |= scale&15 | minimum<<4
	p[j-4] |= scale >> 4 << 6
	p[j] |= minimum >> 4 << 6
}

func writeQ6_K(x []float32, b []byte) {
	var scale [16]float32
	for j := range scale {
		scale[j] = largest(x[16*j:16*j+16]) / 31
	}
	d := putScale(b, 104, largest(scale[:])/127)
	clear(b[:192])
	for j := range scale {
		s := code(scale[j], d, 0, 127)
		b[192+j] = byte(s)
		for i, v := range x[16*j : 16*j+16] {
			putSix(b, 16*j+i, byte(code(v, d*float32(s), -32, 31)+32))
		}
	}
}

// putSix stores six-bit code q of value n (0–255) on zeroed bytes: values 32
// apart within a half share the bytes of high bits, values 64 apart those of
// low bits.
func putSix(b []byte, n int, q byte) {
	half, n := n/128, n%128
	b[64*half+n%64] |= q & 15 << (n / 64 * 4)
	b[128+32*half+n%32] |= q >> 4 << (n / 32 * 2)
}

func abs(x float32) float32 { return max(x, -x) }

func largest(x []float32) float32 {
	m := float32(0)
	for _, v := range x {
		m = max(m, abs(v))
	}
	return m
}
