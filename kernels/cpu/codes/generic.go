package codes

import (
	"encoding/binary"
	"unsafe"

	"github.com/terse-llm/terse/tensor"
)

// The portable kernels do four products with one multiplication: a 64-bit word
// holds a 16-bit lane for each of four vectors, and is multiplied by a 2-bit code.
// A lane holds 80 terms: 80·127·3 < 2^15 signed (Q), 80·255·3 < 2^16 unsigned (P).

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
	for i, page := range p.Pages {
		planeProducts(d[i*p.Rows:], unsafe.Slice(q, nq*p.Width), page[p.Off:], nq, p.Width, p.Rows, low)
	}
}

func planeProducts(d []int32, codes []int8, words []byte, nq, width, rows int, low bool) {
	words = words[:rows*width/4]
	for v := range nq {
		for t := range rows {
			if low {
				d[v*Tokens+t] *= 4
			} else {
				d[v*Tokens+t] = 0
			}
		}
	}
	var x [maxChunk]uint64
	for lo := 0; lo < width; lo += maxChunk {
		chunk := x[:min(maxChunk, width-lo)]
		lanes(chunk, codes[lo:], nq, width)
		for row := range rows {
			at := 4 * ((row/8*(width/16)+lo/16)*8 + row%8)
			a := keyProduct(chunk, words[at:])
			for v := range nq {
				low := int64(int16(a))
				d[v*Tokens+row] += int32(low)
				a = uint64((int64(a) - low) >> 16) // a negative lane has borrowed from the one above
			}
		}
	}
}

// keyProduct multiplies the lanes of a run of channels with one row, whose words
// lie 32 bytes apart.
func keyProduct(x []uint64, words []byte) uint64 {
	var a, b uint64
	for ; len(x) >= 16; x = x[16:] {
		w := binary.LittleEndian.Uint32(words)
		for i := 0; i < 16; i += 4 {
			a += x[i]*uint64(w&3) + x[i+1]*uint64(w>>8&3)
			b += x[i+2]*uint64(w>>16&3) + x[i+3]*uint64(w>>24&3)
			w >>= 2
		}
		words = words[min(32, len(words)):]
	}
	return a + b
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

func genericWiden(step, bias *float32, scale, zero *byte, n int, set uint64, f *Factors) {
	s, b := unsafe.Slice(step, n), unsafe.Slice(bias, n)
	halves := unsafe.Slice(scale, 2*n)
	var zeros []byte
	if zero != nil {
		zeros = unsafe.Slice(zero, 2*n)
	}
	for t := range s {
		x := tensor.GetF16(halves, t)
		kind := set >> t & 1
		y := float32(f.Middle[kind] * x)
		if zeros != nil {
			y += tensor.GetF16(zeros, t)
		}
		s[t], b[t] = f.Step[kind]*x, y
	}
}
