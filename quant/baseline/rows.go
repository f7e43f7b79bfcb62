package baseline

import (
	"encoding/binary"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Scratch is what Rows needs so as not to allocate. The zero value is ready.
type Scratch struct {
	scale, min []float32 // of a block's channels
}

// Rows writes tokens [lo, hi) of one half of one KV head to dst ([token - lo]
// [HeadDim]). page is the head's share of one layer of a coded page.
func (s *Scratch) Rows(dst []float32, g *quant.Geometry, page []byte, half, lo, hi int) {
	if !g.Format.Dequantised() {
		panic("BUG: widening a page of format " + g.Format.Name)
	}
	dst = dst[:(hi-lo)*g.HeadDim]
	switch {
	case g.Format.Family == quant.FamilyGroup:
		groups(dst, g, page, half, lo)
	case half == quant.HalfK:
		s.keys(dst, g, page, lo)
	default:
		values(dst, g, page, lo)
	}
}

// groups widens int8 and int4.
func groups(dst []float32, g *quant.Geometry, page []byte, half, t int) {
	l := &g.Group
	h := &l.Halves[half]
	for ; len(dst) > 0; t, dst = t+1, dst[l.HeadDim:] {
		for group := range l.Groups {
			at := group*g.Format.PageTokens + t
			scale, zero := tensor.GetF16(page[h.Scales:], at), float32(0)
			if l.Bits == 4 {
				zero = tensor.GetF16(page[h.Zeros:], at)
			}
			from := group * l.Width / l.Groups
			for c := from; c < min(from+l.Width/l.Groups, l.HeadDim); c++ {
				dst[c] = float32(scale*float32(l.Code(page, half, t, c))) + zero
			}
		}
	}
}

// keys widens kivi's K, whose parameters are of a channel of a block of tokens.
func (s *Scratch) keys(dst []float32, g *quant.Geometry, page []byte, t int) {
	l, d := &g.Hack[quant.HalfK], g.HeadDim
	if cap(s.scale) < d {
		s.scale, s.min = make([]float32, d), make([]float32, d)
	}
	scale, m := s.scale[:d], s.min[:d]
	block := -1
	for ; len(dst) > 0; t, dst = t+1, dst[d:] {
		if b := t / g.Format.Partition; b != block {
			block = b
			for c := range d {
				scale[c], m[c] = tensor.GetF16(page[l.Scale:], b*d+c), tensor.GetF16(page[l.Min:], b*d+c)
			}
		}
		for w := range (d + 15) / 16 {
			first, n := 16*w, min(16, d-16*w)
			x, sw, mw := dst[first:first+n], scale[first:first+n], m[first:first+n]
			at := 4 * quant.KeyWord(l.Width, t, w)
			top := binary.LittleEndian.Uint32(page[l.Planes[0]+at:])
			if l.NPlanes == 1 {
				for j := range x {
					x[j] = float32(sw[j]*float32(top>>keyShift[j]&3)) + mw[j]
				}
				continue
			}
			low := binary.LittleEndian.Uint32(page[l.Planes[1]+at:])
			for j := range x {
				x[j] = float32(sw[j]*float32(top>>keyShift[j]&3<<2|low>>keyShift[j]&3)) + mw[j]
			}
		}
	}
}

// keyShift is where a word of K has the bit pair of its channel j.
var keyShift = [16]uint8{0, 8, 16, 24, 2, 10, 18, 26, 4, 12, 20, 28, 6, 14, 22, 30}

// values widens kivi's V, whose parameters are of a part of a token's channels.
func values(dst []float32, g *quant.Geometry, page []byte, t int) {
	l, d := &g.Hack[quant.HalfV], g.HeadDim
	for ; len(dst) > 0; t, dst = t+1, dst[d:] {
		for p := range l.Parts {
			lo, hi := l.Part(p, d)
			scale, m := tensor.GetF16(page[l.Scale:], t*l.Parts+p), tensor.GetF16(page[l.Min:], t*l.Parts+p)
			for c := lo; c < hi; c++ {
				at, shift := 4*quant.ValueWord(l.Width, t/4, c/32, c%8)+t%4, c%32/8*2
				code := page[l.Planes[0]+at] >> shift & 3
				if l.NPlanes == 2 {
					code = code<<2 | page[l.Planes[1]+at]>>shift&3
				}
				dst[c] = float32(scale*float32(code)) + m
			}
		}
	}
}
