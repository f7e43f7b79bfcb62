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

// tile is what the generic kernels widen at a time for all vectors: some channels
// of four rows, zeros where there are fewer.
type tile [4][128]float32

func (x *tile) load(rows Rows, d, t, tokens, c, n int) {
	for j := range x {
		row := x[j][:n]
		if t+j >= tokens {
			clear(row)
			continue
		}
		at := (t+j)*d + c
		if rows.Type == tensor.F16 {
			for i, b := 0, rows.Data[2*at:2*(at+n)]; i < n; i, b = i+1, b[2:] {
				row[i] = tensor.F16ToF32(binary.LittleEndian.Uint16(b))
			}
			continue
		}
		for i, b := 0, rows.Data[4*at:4*(at+n)]; i < n; i, b = i+1, b[4:] {
			row[i] = math.Float32frombits(binary.LittleEndian.Uint32(b))
		}
	}
}

// genericQK takes two vectors and four tokens at a time; a score is one sum in
// channel order, carried from tile to tile in w.
func genericQK(n int, w []float32, ld int, q []float32, d, tokens int, rows Rows) {
	for i := range n {
		clear(w[i*ld : i*ld+tokens])
	}
	var x tile
	for t := 0; t < tokens; t += 4 {
		for c := 0; c < d; c += len(x[0]) {
			m := min(len(x[0]), d-c)
			x.load(rows, d, t, tokens, c, m)
			for i := 0; i < n; i += 2 {
				other := min(i+1, n-1)
				w0, w1 := w[i*ld+t:i*ld+min(t+4, tokens)], w[other*ld+t:other*ld+min(t+4, tokens)]
				s0, s1 := x.dots(q[i*d+c:][:m], q[other*d+c:][:m], w0, w1)
				copy(w0, s0[:])
				copy(w1, s1[:])
			}
		}
	}
}

// dots adds the products of two vectors with the rows to w0 and w1.
func (x *tile) dots(q0, q1, w0, w1 []float32) (s0, s1 [4]float32) {
	copy(s0[:], w0)
	copy(s1[:], w1)
	n := len(q0)
	q1 = q1[:n]
	k0, k1, k2, k3 := x[0][:n], x[1][:n], x[2][:n], x[3][:n]
	a0, a1, a2, a3, b0, b1, b2, b3 := s0[0], s0[1], s0[2], s0[3], s1[0], s1[1], s1[2], s1[3]
	for c, y := range q0 {
		z := q1[c]
		a0 += y * k0[c]
		b0 += z * k0[c]
		a1 += y * k1[c]
		b1 += z * k1[c]
		a2 += y * k2[c]
		b2 += z * k2[c]
		a3 += y * k3[c]
		b3 += z * k3[c]
	}
	return [4]float32{a0, a1, a2, a3}, [4]float32{b0, b1, b2, b3}
}

// genericPV takes four tokens at a time; an output is one sum in token order.
func genericPV(n int, acc []float32, d int, w []float32, ld, tokens int, rows Rows) {
	var x tile
	for t := 0; t < tokens; t += 4 {
		for c := 0; c < d; c += len(x[0]) {
			m := min(len(x[0]), d-c)
			x.load(rows, d, t, tokens, c, m)
			for i := range n {
				x.add(acc[i*d+c:][:m], w[i*ld+t:i*ld+min(t+4, tokens)])
			}
		}
	}
}

// add adds the rows, weighted, to out.
func (x *tile) add(out, w []float32) {
	n := len(out)
	if len(w) < 4 {
		for j, a := range w {
			for c, v := range x[j][:n] {
				out[c] += a * v
			}
		}
		return
	}
	v0, v1, v2, v3 := x[0][:n], x[1][:n], x[2][:n], x[3][:n]
	a0, a1, a2, a3 := w[0], w[1], w[2], w[3]
	for c, o := range out {
		o += a0 * v0[c]
		o += a1 * v1[c]
		o += a2 * v2[c]
		o += a3 * v3[c]
		out[c] = o
	}
}

func genericWiden(dst, src []byte) {
	for i := range len(src) / 2 {
		x := tensor.F16ToF32(binary.LittleEndian.Uint16(src[2*i:]))
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
	}
}
