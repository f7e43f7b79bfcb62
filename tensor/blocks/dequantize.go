package blocks

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/terse-llm/terse/tensor"
)

// Dequantize widens len(dst) elements of type dt from src. dst must be a whole
// number of blocks and src exactly their bytes; anything else is a bug of the
// caller, who has checked shapes when the tensor was bound.
func Dequantize(dst []float32, dt tensor.DType, src []byte) {
	check(len(dst), dt, len(src))
	switch dt {
	case tensor.F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case tensor.F16:
		for i := range dst {
			dst[i] = tensor.F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case tensor.BF16:
		for i := range dst {
			dst[i] = tensor.BF16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case tensor.Q8_0:
		each(dst, src, dt, readQ8_0)
	case tensor.Q4_0:
		each(dst, src, dt, readQ4_0)
	case tensor.Q4_K:
		each(dst, src, dt, readQ4_K)
	case tensor.Q5_K:
		each(dst, src, dt, readQ5_K)
	case tensor.Q6_K:
		each(dst, src, dt, readQ6_K)
	}
}

func check(elems int, dt tensor.DType, bytes int) {
	n, size := dt.Block()
	if n == 0 || elems%n != 0 || elems/n*size != bytes {
		panic(fmt.Sprintf("BUG: %d elements of %v do not go with %d bytes", elems, dt, bytes))
	}
}

func each(dst []float32, src []byte, dt tensor.DType, read func(dst []float32, b []byte)) {
	n, size := dt.Block()
	for len(dst) > 0 {
		read(dst[:n:n], src[:size:size])
		dst, src = dst[n:], src[size:]
	}
}

func readQ8_0(dst []float32, b []byte) {
	d := tensor.GetF16(b, 0)
	for i, q := range b[2:34] {
		dst[i] = d * float32(int8(q))
	}
}

func readQ4_0(dst []float32, b []byte) {
	d := tensor.GetF16(b, 0)
	lo, hi := dst[:16], dst[16:32]
	for i, q := range b[2:18] {
		lo[i] = d * float32(int(q&15)-8)
		hi[i] = d * float32(int(q>>4)-8)
	}
}

// KScale is scale and minimum j of the 12 packed bytes of Q4_K and Q5_K. The
// first four have their six bits in one byte; the last four have four bits
// there and two at the top of the first eight bytes.
func KScale(p []byte, j int) (scale, minimum uint8) {
	if j < 4 {
		return p[j] & 63, p[j+4] & 63
	}
	return p[j+4]&15 | p[j-4]>>6<<4, p[j+4]>>4 | p[j]>>6<<4
}

// The products of the K-quants are exact in float32 (11 bits of an f16, 6 or 8
// of a scale, at most 6 of a code), so only the subtraction rounds: neither the
// order of operations nor a fused multiply-add changes a bit.

func readQ4_K(dst []float32, b []byte) {
	d, m := tensor.GetF16(b, 0), tensor.GetF16(b, 1)
	scales, qs := b[4:16], b[16:144]
	for j := range 4 { // 64 values: low nibbles first, then high
		s0, m0 := KScale(scales, 2*j)
		s1, m1 := KScale(scales, 2*j+1)
		d0, d1 := d*float32(s0), d*float32(s1)
		n0, n1 := m*float32(m0), m*float32(m1)
		lo, hi := dst[64*j:64*j+32], dst[64*j+32:64*j+64]
		for i, q := range qs[32*j : 32*j+32] {
			lo[i] = d0*float32(q&15) - n0
			hi[i] = d1*float32(q>>4) - n1
		}
	}
}

func readQ5_K(dst []float32, b []byte) {
	d, m := tensor.GetF16(b, 0), tensor.GetF16(b, 1)
	scales, qh, qs := b[4:16], b[16:48], b[48:176]
	for j := range 4 {
		s0, m0 := KScale(scales, 2*j)
		s1, m1 := KScale(scales, 2*j+1)
		d0, d1 := d*float32(s0), d*float32(s1)
		n0, n1 := m*float32(m0), m*float32(m1)
		lo, hi := dst[64*j:64*j+32], dst[64*j+32:64*j+64]
		for i, q := range qs[32*j : 32*j+32] {
			h := qh[i] >> (2 * j)
			lo[i] = d0*float32(q&15|h&1<<4) - n0
			hi[i] = d1*float32(q>>4|h&2<<3) - n1
		}
	}
}

func readQ6_K(dst []float32, b []byte) {
	d := tensor.GetF16(b, 104)
	for half := range 2 { // 128 values from 64 bytes of low and 32 of high bits
		ql, qh, sc := b[64*half:], b[128+32*half:], b[192+8*half:]
		out := dst[128*half : 128*half+128]
		for i := range 32 {
			l0, l1, h, s := ql[i], ql[i+32], qh[i], i/16
			out[i] = six(d, sc[s], l0&15|h&3<<4)
			out[i+32] = six(d, sc[s+2], l1&15|h>>2&3<<4)
			out[i+64] = six(d, sc[s+4], l0>>4|h>>4&3<<4)
			out[i+96] = six(d, sc[s+6], l1>>4|h>>6<<4)
		}
	}
}

func six(d float32, scale, q uint8) float32 {
	return d * float32(int8(scale)) * float32(int(q)-32)
}
