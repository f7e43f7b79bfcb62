package ref

import (
	"encoding/binary"

	"github.com/terse-llm/terse/quant"
)

// Products with codes run four query vectors at a time in plain 64-bit words:
// a word holds four 16-bit lanes, one per vector, and one multiplication by a
// 2-bit code does four products. Lanes hold 80 terms: 80·127·3 < 2^15 signed (Q
// of hq), 80·255·3 < 2^16 unsigned (P, Q of hack). Longer sums are cut there and
// widened. The result is exact, and so equal to any other way of summing.
const maxTerms = 80

// dots4 multiplies one word sequence with four rows of codes.
func dots4(x []uint64, c0, c1, c2, c3 []uint8) (a0, a1, a2, a3 uint64) {
	n := len(x)
	c0, c1, c2, c3 = c0[:n], c1[:n], c2[:n], c3[:n]
	for i, v := range x {
		a0 += v * uint64(c0[i])
		a1 += v * uint64(c1[i])
		a2 += v * uint64(c2[i])
		a3 += v * uint64(c3[i])
	}
	return a0, a1, a2, a3
}

// operand is four query vectors' integers, one word per channel (or token), and
// whether they are signed.
type operand struct {
	words  []uint64
	signed bool
}

// products adds weight times the products of words [lo, hi) with columns
// [lo, hi) of rows r … r+3 of a plane of codes ([row][stride]) to
// sums[row-r][lane].
func (x operand) products(sums *[4][lanes]int32, codes []uint8, stride, r, lo, hi int, weight int32) {
	for ; lo < hi; lo += maxTerms {
		end := min(lo+maxTerms, hi)
		at := r*stride + lo
		a0, a1, a2, a3 := dots4(x.words[lo:end], codes[at:], codes[at+stride:], codes[at+2*stride:], codes[at+3*stride:])
		for i, a := range [4]uint64{a0, a1, a2, a3} {
			v := unsigned(a)
			if x.signed {
				v = signed(a)
			}
			for l := range lanes {
				sums[i][l] += weight * v[l]
			}
		}
	}
}

// unsigned takes the lanes of a sum of non-negative products apart.
func unsigned(a uint64) [lanes]int32 {
	return [lanes]int32{int32(a & 0xffff), int32(a >> 16 & 0xffff), int32(a >> 32 & 0xffff), int32(a >> 48)}
}

// signed takes the lanes of a sum of signed products apart: a negative lane has
// borrowed from the one above.
func signed(a uint64) (v [lanes]int32) {
	rest := int64(a)
	for l := range lanes {
		low := int64(int16(rest))
		v[l] = int32(low)
		rest = (rest - low) >> 16
	}
	return v
}

// put adds value x to a lane of a word.
func put(word *uint64, lane int, x int32) { *word += uint64(int64(x)) << (16 * lane) }

// unpackKeys spreads a K plane of the given width over dst ([row][width]).
func unpackKeys(dst []uint8, plane []byte, width, rows int) {
	for row := range rows {
		for w := range width / 16 {
			word := binary.LittleEndian.Uint32(plane[4*quant.KeyWord(width, row, w):])
			out := dst[row*width+16*w:][:16]
			binary.LittleEndian.PutUint32(out[0:], word&0x03030303)
			binary.LittleEndian.PutUint32(out[4:], word>>2&0x03030303)
			binary.LittleEndian.PutUint32(out[8:], word>>4&0x03030303)
			binary.LittleEndian.PutUint32(out[12:], word>>6&0x03030303)
		}
	}
}

// unpackValues spreads a V plane of the given width over dst, channel by
// channel ([width][rows]); rows is a multiple of 4.
func unpackValues(dst []uint8, plane []byte, width, rows int) {
	for quad := range rows / 4 {
		for at := range width / 4 {
			g, c8 := at/8, at%8
			word := binary.LittleEndian.Uint32(plane[4*quant.ValueWord(width, quad, g, c8):])
			for i := range 4 {
				out := dst[(32*g+8*i+c8)*rows+4*quad:][:4]
				binary.LittleEndian.PutUint32(out, word>>(2*i)&0x03030303)
			}
		}
	}
}
