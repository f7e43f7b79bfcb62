package ref

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// exactReader reads a tile's float16 K and V, widened once for all vectors.
type exactReader struct {
	k, v []float32 // [token - lo][channel], zeros up to a multiple of 4 tokens
}

func (r *exactReader) prepare(*attendItem) {}

func (r *exactReader) loadKeys(it *attendItem, t *kernels.Tile) {
	g := it.job.Geometry
	r.k = widenRows(r.k, g, g.ExactK(t.Exact, it.job.Head), t.Lo, t.Hi)
}

func (r *exactReader) loadValues(it *attendItem, t *kernels.Tile) {
	g := it.job.Geometry
	r.v = widenRows(r.v, g, g.ExactV(t.Exact, it.job.Head), t.Lo, t.Hi)
}

func widenRows(dst []float32, g *quant.Geometry, src []byte, lo, hi int) []float32 {
	d, row := g.HeadDim, g.ExactType().RowBytes(g.HeadDim)
	n := (hi - lo) * d
	dst = grow(dst, (hi-lo+3)/4*4*d)
	widen(dst[:n], g.ExactType(), src[lo*row:hi*row])
	clear(dst[n:])
	return dst
}

// scores takes two vectors and four tokens at a time; every score is one sum in
// channel order.
func (r *exactReader) scores(it *attendItem, b *block) {
	d := it.job.Geometry.HeadDim
	for l := 0; l < lanes; l += 2 {
		end := max(b.end[l], b.end[l+1])
		if end == b.lo {
			continue
		}
		q0 := it.query(b.first + l)
		q1 := q0 // the second lane may be empty
		if b.end[l+1] > b.lo {
			q1 = it.query(b.first + l + 1)
		}
		for t := b.lo; t < end; t += 4 {
			s0, s1 := dots2x4(q0, q1, r.k[(t-b.lo)*d:(t-b.lo+4)*d])
			copy(b.w[l][t:], s0[:])
			copy(b.w[l+1][t:], s1[:])
		}
	}
}

// dots2x4 is the products of two vectors with four consecutive rows.
func dots2x4(q0, q1, k []float32) (s0, s1 [4]float32) {
	d := len(q0)
	q1 = q1[:d]
	k0, k1, k2, k3 := k[:d], k[d:2*d], k[2*d:3*d], k[3*d:4*d]
	k1, k2, k3 = k1[:d], k2[:d], k3[:d]
	var a0, a1, a2, a3, b0, b1, b2, b3 float32
	for c, x := range q0 {
		y := q1[c]
		z := k0[c]
		a0 += x * z
		b0 += y * z
		z = k1[c]
		a1 += x * z
		b1 += y * z
		z = k2[c]
		a2 += x * z
		b2 += y * z
		z = k3[c]
		a3 += x * z
		b3 += y * z
	}
	return [4]float32{a0, a1, a2, a3}, [4]float32{b0, b1, b2, b3}
}

func (r *exactReader) values(it *attendItem, b *block) {
	d := it.job.Geometry.HeadDim
	for l := 0; l < lanes; l += 2 {
		clear(b.out[l])
		clear(b.out[l+1])
		end := max(b.end[l], b.end[l+1])
		for t := b.lo; t < end; t += 4 {
			add2x4(b.out[l], b.out[l+1], weights4(b.w[l], t), weights4(b.w[l+1], t), r.v[(t-b.lo)*d:(t-b.lo+4)*d])
		}
	}
}

// weights4 is weights [t, t+4), zeros past the page's end.
func weights4(w []float32, t int) (x [4]float32) {
	copy(x[:], w[t:])
	return x
}

// add2x4 adds four consecutive rows, weighted, to two outputs.
func add2x4(o0, o1 []float32, w0, w1 [4]float32, v []float32) {
	d := len(o0)
	o1 = o1[:d]
	v0, v1, v2, v3 := v[:d], v[d:2*d], v[2*d:3*d], v[3*d:4*d]
	v1, v2, v3 = v1[:d], v2[:d], v3[:d]
	a0, a1, a2, a3 := w0[0], w0[1], w0[2], w0[3]
	b0, b1, b2, b3 := w1[0], w1[1], w1[2], w1[3]
	for c, z := range v0 {
		x, y := o0[c]+a0*z, o1[c]+b0*z
		z = v1[c]
		x += a1 * z
		y += b1 * z
		z = v2[c]
		x += a2 * z
		y += b2 * z
		z = v3[c]
		o0[c] = x + a3*z
		o1[c] = y + b3*z
	}
}
