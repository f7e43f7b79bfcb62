package exact

import (
	"encoding/binary"
	"math"

	"github.com/terse-llm/terse/tensor"
)

// at is element i.
func (r Rows) at(i int) float32 {
	if r.Type == tensor.F16 {
		return tensor.F16ToF32(binary.LittleEndian.Uint16(r.Data[2*i:]))
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(r.Data[4*i:]))
}

// addQK adds the products of channels [from, d) to the scores of n vectors: the
// generic kernel (from 0, scores 0) and the last channels of those that take
// whole vectors only.
func addQK(n int, w []float32, ld int, q []float32, d, from, tokens int, rows Rows) {
	for t := range tokens {
		for c := from; c < d; c++ {
			x := rows.at(t*d + c)
			for i := range n {
				w[i*ld+t] += q[i*d+c] * x
			}
		}
	}
}

// genericQK keeps four sums in registers.
func genericQK(n int, w []float32, ld int, q []float32, d, tokens int, rows Rows) {
	if n < 4 {
		for i := range n {
			clear(w[i*ld : i*ld+tokens])
		}
		addQK(n, w, ld, q, d, 0, tokens, rows)
		return
	}
	q0, q1, q2, q3 := q[:d], q[d:2*d], q[2*d:3*d], q[3*d:4*d]
	for t := range tokens {
		var a, b, e, f float32
		for c := range d {
			x := rows.at(t*d + c)
			a += q0[c] * x
			b += q1[c] * x
			e += q2[c] * x
			f += q3[c] * x
		}
		w[t], w[ld+t], w[2*ld+t], w[3*ld+t] = a, b, e, f
	}
}

// addPV adds the weighted rows to channels [from, d) of n vectors: the generic
// kernel (from 0), and the last channels of those that take whole vectors only.
func addPV(n int, acc []float32, d, from int, w []float32, ld, tokens int, rows Rows) {
	for t := range tokens {
		for c := from; c < d; c++ {
			x := rows.at(t*d + c)
			for i := range n {
				acc[i*d+c] += w[i*ld+t] * x
			}
		}
	}
}

func genericWiden(dst, src []byte) {
	for i := range len(src) / 2 {
		x := tensor.F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
}
