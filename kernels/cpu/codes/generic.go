package codes

import (
	"encoding/binary"
	"unsafe"

	"github.com/terse-llm/terse/tensor"
)

// The portable kernels work on four vectors at once: a 64-bit word holds a 16-bit
// lane for each. A lane holds 80 products with a code: 80·127·3 < 2^15 signed (Q),
// 80·255·3 < 2^16 unsigned (P). Products with K are looked up, two codes at a time,
// in tables of the queries' 16 sums for two channels; those with V, where every
// quad of tokens would need tables anew, are multiplications of the word by a code.

// lanes gathers element i of the vectors into one word, for n elements.
func lanes[T int8 | uint8](words []uint64, x []T, nq, stride int) {
	for i := range words {
		var w uint64
		for v := range nq {
			w += uint64(int64(x[v*stride+i])) << (16 * v)
		}
		words[i] = w
	}
}

// maxChunk is the number of channels of K that a lane sums before it widens.
const maxChunk = 64

func genericProducts(dots *int32, q *int8, nq int, p *Planes, low bool) {
	n := len(p.Pages) * p.Rows
	d := unsafe.Slice(dots, (nq-1)*Tokens+n)
	for v := range nq {
		row := d[v*Tokens : v*Tokens+n]
		if !low {
			clear(row)
		}
		for t := range row {
			row[t] *= 4
		}
	}
	codes := unsafe.Slice(q, nq*p.Width)
	var tables [maxChunk / 2][16]uint64
	for lo := 0; lo < p.Width; lo += maxChunk {
		chunk := min(maxChunk, p.Width-lo)
		for c := 0; c < chunk; c += 16 {
			var x [16]uint64
			lanes(x[:], codes[lo+c:], nq, p.Width)
			tabulate((*[8][16]uint64)(tables[c/2:]), &x)
		}
		for i, page := range p.Pages {
			planeProducts(d[i*p.Rows:], tables[:chunk/2], page[p.Off:p.Off+p.Rows*p.Width/4], nq, p.Width, lo, p.Rows)
		}
	}
}

func planeProducts(d []int32, tables [][16]uint64, words []byte, nq, width, lo, rows int) {
	for row := 0; row < rows; row += 8 {
		var a [8]uint64
		at := 4 * (row/8*(width/16) + lo/16) * 8
		for t := tables; len(t) >= 8; t = t[8:] {
			addWords(&a, (*[8][16]uint64)(t), words[at:at+32])
			at += 32
		}
		for t, sum := range a {
			for v := range nq {
				low := int64(int16(sum))
				d[v*Tokens+row+t] += int32(low)
				sum = uint64((int64(sum) - low) >> 16) // a negative lane has borrowed from the one above
			}
		}
	}
}

// addWords adds the products of 16 channels of 8 tokens, whose words lie side by
// side. Nibble 2b+h of a word is channels 8h+b and 8h+4+b.
func addWords(a *[8]uint64, t *[8][16]uint64, words []byte) {
	words = words[:32]
	for i := range a {
		w := binary.LittleEndian.Uint32(words[4*i:])
		a[i] += t[0][w&15] + t[1][w>>4&15] + t[2][w>>8&15] + t[3][w>>12&15] +
			t[4][w>>16&15] + t[5][w>>20&15] + t[6][w>>24&15] + t[7][w>>28]
	}
}

// tabulate fills the tables of 16 channels.
func tabulate(t *[8][16]uint64, x *[16]uint64) {
	for n := range t {
		c := n%2*8 + n/2
		for codes := range t[n] {
			t[n][codes] = x[c]*uint64(codes&3) + x[c+4]*uint64(codes>>2)
		}
	}
}

func genericSums(sums *int32, weights *uint8, nq int, p *Planes, add bool) {
	s := unsafe.Slice(sums, nq*p.Width)
	if !add {
		clear(s)
	}
	w := unsafe.Slice(weights, (nq-1)*Tokens+len(p.Pages)*p.Rows)
	for i, page := range p.Pages {
		planeSums(s, w[i*p.Rows:], page[p.Off:], nq, p.Width, p.Rows/4)
	}
}

func planeSums(s []int32, weights []uint8, words []byte, nq, width, quads int) {
	words = words[:quads*width]
	var x [maxRows]uint64
	lanes(x[:4*quads], weights, nq, Tokens)
	for at := range width / 4 { // eight words for every 32 channels
		var a [4]uint64
		for quad := range quads {
			w := binary.LittleEndian.Uint32(words[quad*width+4*at:])
			y := x[4*quad : 4*quad+4]
			for i := range a {
				a[i] += y[0]*uint64(w&3) + y[1]*uint64(w>>8&3) + y[2]*uint64(w>>16&3) + y[3]*uint64(w>>24&3)
				w >>= 2
			}
		}
		for i, lanes := range a {
			c := at/8*32 + 8*i + at%8
			for v := range nq {
				s[v*width+c] += int32(lanes >> (16 * v) & 0xffff)
			}
		}
	}
}

func genericMerge(m *Merge, out *float32, sums, low *int32, nq, stride, width, n int) {
	all := unsafe.Slice(out, (nq-1)*stride+n)
	top := unsafe.Slice(sums, nq*width)
	var second []int32
	if low != nil {
		second = unsafe.Slice(low, nq*width)
	}
	for v := range nq {
		o, s := all[v*stride:][:n], top[v*width:][:n]
		alpha, step, centre := m.Alpha[v], m.Scale[v]*0.125, m.Centre[v]
		middle := 12*m.Sum[v] + 3*m.LowSum[v]
		for c := range o {
			x := 8*s[c] - middle
			if second != nil {
				x += 2 * second[v*width+c]
			}
			o[c] = alpha*o[c] + (step*float32(x) + centre)
		}
	}
}

func genericMaxAbs(x *float32, n int) float32 {
	var top float32
	for _, v := range unsafe.Slice(x, n) {
		if v < 0 {
			v = -v
		}
		if v > top {
			top = v
		}
	}
	return top
}

func genericQuantise(codes *int8, x *float32, n int, inv float32) (sum int32) {
	dst := unsafe.Slice(codes, n)
	for i, v := range unsafe.Slice(x, n) {
		y := float32(v * inv)
		if !(y > -127) {
			y = -127
		}
		c := int32(float32(min(y, 127)+128.5)) - 128 // to nearest; the offset keeps it positive
		dst[i] = int8(c)
		sum += c
	}
	return sum
}

func genericWiden(step, bias *float32, scale, zero *byte, n int, set uint64, f *factors) {
	s, b := unsafe.Slice(step, n), unsafe.Slice(bias, n)
	halves := unsafe.Slice(scale, 2*n)
	var zeros []byte
	if zero != nil {
		zeros = unsafe.Slice(zero, 2*n)
	}
	for t := range s {
		x := tensor.GetF16(halves, t)
		kind := set >> t & 1
		y := float32(f.middle[kind] * x)
		if zeros != nil {
			y += tensor.GetF16(zeros, t)
		}
		s[t], b[t] = f.step[kind]*x, y
	}
}
