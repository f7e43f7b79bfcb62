package quant

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/terse-llm/terse/tensor"
)

// Uniform is a uniform code: levels 0 … Last, the middle of them at Half. Clips
// are the candidates for the half-range as parts of the largest distance from
// the centre, tried in this order: 5 suffice to come within 2 % of the best
// error on Gaussian data, and the first keeps data that fill the range exact.
type Uniform struct {
	Last, Half float32
	Clips      [5]float32
}

var (
	code2 = Uniform{3, 1.5, [5]float32{1, 0.8, 0.67, 0.57, 0.47}}
	code4 = Uniform{15, 7.5, [5]float32{1, 0.9, 0.8, 0.7, 0.6}}
)

// HQCode is the code of hq tokens without the second plane, or with it.
func HQCode(second bool) Uniform {
	if second {
		return code4
	}
	return code2
}

// encodeHQ codes a full page's half of one head.
func (g *Geometry) encodeHQ(a *EncodeArgs, w *Scratch, page, src []byte, head, half int) {
	l, tokens, d := &g.HQ[half], g.Format.PageTokens, g.HeadDim
	w.load(src, d, 0, tokens)
	set := g.SecondSet(a, head, half)
	if l.Mask >= 0 {
		binary.LittleEndian.PutUint64(page[l.Mask:], set)
	}
	for i := l.NSegments - 1; i >= 0; i-- { // what a segment shares comes after it
		s := l.Segments[i]
		for t := range tokens {
			at := t*d + s.Lo
			x, codes := w.x[at:t*d+s.Hi], w.codes[at:t*d+s.Hi]
			q := HQCode(s.Low >= 0 && !l.Refined && set>>t&1 == 1)
			if s.Shared {
				scale := tensor.GetF16(page[s.Scale:], t) / 4
				q.code(codes, x, scale, -float32(q.Half*scale))
				continue
			}
			scale, zero := g.fit(q, x)
			q.code(codes, x, scale, zero)
			if g.Format.Norm && q == code2 {
				scale, zero = g.keepNorm(x, codes, scale, zero)
			}
			if i == 1 && l.Segments[0].Shared {
				_, reach := g.spread(w.x[t*d : t*d+l.Segments[0].Hi])
				if least := SharedScale(reach); least > scale {
					scale, zero = least, -float32(q.Half*least)
					q.code(codes, x, scale, zero)
				}
			}
			tensor.PutF16(page[s.Scale:], t, scale)
			if s.Zero >= 0 {
				tensor.PutF16(page[s.Zero:], t, zero)
			}
			if q == code2 { // the top plane's bits are 2 and 3 in both cases
				for i := range codes {
					codes[i] <<= 2
				}
			}
		}
		pack(half, page[s.Top:], s.Width, w.codes[s.Lo:], d, s.Hi-s.Lo, 0, tokens, 2)
		switch {
		case l.Refined && set == 0:
		case l.Refined:
			g.Refine(w, page, src, half, set)
		case s.Low >= 0:
			rows, n := w.lowRows(set, l.LowRows, d, tokens)
			pack(half, page[s.Low:], s.Width, rows[s.Lo:], d, s.Hi-s.Lo, 0, n, 0)
		}
	}
}

// SecondSet is the set of a page's tokens that get the second plane, where the
// half of an hq page has one.
func (g *Geometry) SecondSet(a *EncodeArgs, head, half int) uint64 {
	l := &g.HQ[half]
	switch {
	case l.Mask < 0:
		return ^uint64(0)
	case a.Important == nil:
		return 0
	}
	set := a.Important(head, half)
	if n := bits.OnesCount64(set); n > l.LowRows {
		panic(fmt.Sprintf("BUG: %d important tokens in a page of format %s", n, g.Format.Name))
	}
	return set
}

// lowRows is the codes of the tokens in set, row by row, and the number of rows
// to write.
func (w *Scratch) lowRows(set uint64, rows, d, tokens int) ([]uint8, int) {
	if rows == tokens {
		return w.codes, rows
	}
	clear(w.rows[:rows*d])
	for row := 0; set != 0; row++ {
		t := bits.TrailingZeros64(set)
		copy(w.rows[row*d:(row+1)*d], w.codes[t*d:])
		set &= set - 1
	}
	return w.rows, rows
}

// fit chooses the scale and zero (both as float16 stores them) of one group:
// min/max, or the clip candidate of the least squared error.
func (g *Geometry) fit(q Uniform, x []float32) (scale, zero float32) {
	centre, reach := g.spread(x)
	candidates := q.Clips[:]
	if !g.Format.Clip {
		candidates = candidates[:1]
	}
	least := float32(-1)
	for _, clip := range candidates {
		s := roundF16(float32(reach*clip) / q.Half)
		z := -float32(q.Half * s)
		if !g.Format.Symmetric {
			z = roundF16(centre + z)
		}
		if len(candidates) == 1 {
			return s, z
		}
		if e := q.squaredError(x, s, z); least < 0 || e < least {
			least, scale, zero = e, s, z
		}
	}
	return scale, zero
}

// SharedScale is the least scale that leading channels of a certain reach may
// share: their 4-bit codes, whose step is a quarter of it, then clip an eighth of the
// reach. (Of larger ones that is hardly less: more clipping costs more than coarser
// codes of the other channels.)
func SharedScale(reach float32) float32 {
	return roundF16(float32(reach * (0.875 * 4 / 7.5)))
}

// keepNorm is the scale (and zero) with which the 2-bit codes of x, less the
// centre of their levels, have the product with x that x has with itself. The
// error is then orthogonal to x: scores of the keys that a query looks for, and
// sums of many values, come out neither smaller nor larger. The scale of the
// least error makes both smaller by that error, about 12 % at 2 bits.
func (g *Geometry) keepNorm(x []float32, codes []uint8, scale, zero float32) (float32, float32) {
	half := code2.Half
	centre := zero + float32(half*scale)
	var xx, xy float32
	for i, v := range x {
		u := v - centre
		xx += float32(u * u)
		xy += float32(u * (float32(codes[i]) - half))
	}
	if !(xy > 0) {
		return scale, zero
	}
	scale = roundF16(xx / xy)
	zero = -float32(half * scale)
	if !g.Format.Symmetric {
		zero = roundF16(centre + zero)
	}
	return scale, zero
}

// spread is the centre of the levels and the largest distance from it.
func (g *Geometry) spread(x []float32) (centre, reach float32) {
	lo, hi := minMax(x)
	if g.Format.Symmetric {
		return 0, max(hi, -lo)
	}
	return lo/2 + hi/2, hi/2 - lo/2
}

func minMax(x []float32) (lo, hi float32) {
	lo, hi = x[0], x[0]
	for _, v := range x[1:] {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

// The arithmetic of coding is spelled out in float32 steps (the conversions
// forbid fused multiply-add), so that every machine finds the same codes.

// code writes the nearest levels of x in scale·c + zero.
func (q Uniform) code(dst []uint8, x []float32, scale, zero float32) {
	inv := inverse(scale)
	for i, v := range x {
		dst[i] = uint8(q.level(v, inv, zero))
	}
}

// level is the nearest level of v as a float32.
func (q Uniform) level(v, inv, zero float32) float32 {
	y := float32((v-zero)*inv) + 0.5
	return float32(int32(min(max(y, 0), q.Last)))
}

func (q Uniform) squaredError(x []float32, scale, zero float32) float32 {
	inv := inverse(scale)
	var sum float32
	for _, v := range x {
		e := float32(q.level(v, inv, zero)*scale) + zero - v
		sum += float32(e * e)
	}
	return sum
}

// inverse is 1/scale, or 0 where every value is the zero itself.
func inverse(scale float32) float32 {
	if scale == 0 {
		return 0
	}
	return 1 / scale
}
