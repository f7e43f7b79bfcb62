package matmul

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// interleave writes n floats of src with a stride of m.
func interleave(dst *byte, m int, src *float32, n int) {
	to := unsafe.Slice((*float32)(unsafe.Pointer(dst)), (n-1)*m+1)
	for i, v := range unsafe.Slice(src, n) {
		to[i*m] = v
	}
}

// tiny is the largest magnitude whose block counts as zero: the reciprocal of
// smaller ones leaves float32.
const tiny = 0x1p-100

// encode writes one row of m of the records of n floats, whole blocks; dst is the
// row's first dword. A block with a NaN or an infinity gets such a scale, which
// makes every output of the row NaN or infinite; its codes mean nothing.
func encode(dst *byte, m int, src *float32, n int) {
	to := unsafe.Slice(dst, n/32*m*recordBytes-4*(m-1))
	for x := unsafe.Slice(src, n); len(x) > 0; x = x[32:] {
		encodeBlock(to, m, (*[32]float32)(x))
		if len(x) > 32 {
			to = to[m*recordBytes:]
		}
	}
}

func encodeBlock(dst []byte, m int, x *[32]float32) {
	top := uint32(0) // of the magnitudes' bits, which order as the magnitudes do, NaN above all
	for _, v := range x {
		top = max(top, math.Float32bits(v)&0x7fffffff)
	}
	largest := math.Float32frombits(top)
	scale, inverse := largest/127, 127/largest
	if largest < tiny {
		scale, inverse = 0, 0
	}
	var sums [2]int32
	for i, v := range x {
		c := roundCode(v * inverse)
		dst[i/4*4*m+i%4] = byte(c)
		sums[i/16] += int32(c)
	}
	sum := sums[0] + sums[1]
	tail := func(field int, bits uint32) { binary.LittleEndian.PutUint32(dst[4*field*m:], bits) }
	tail(fieldScale, math.Float32bits(scale))
	tail(fieldSum, math.Float32bits(scale*float32(sum)))
	tail(fieldFix128, uint32(-128*sum))
	tail(fieldFix8, uint32(-8*sum))
	tail(fieldFix32, uint32(-32*sums[0]))
	tail(fieldFix32+1, uint32(-32*sums[1]))
}

// roundCode is x to the nearest integer, halves to even; 0 for what is no code.
func roundCode(x float32) int8 {
	if !(x >= -127.5 && x <= 127.5) {
		return 0
	}
	// Adding 1.5·2²³ leaves no bits below the unit.
	const shift = 3 << 22
	return int8(min(max(float32(x)+shift-shift, -127), 127)) // converted, so that no product fuses with the sum
}
