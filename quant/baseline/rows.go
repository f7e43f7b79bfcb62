package baseline

import (
	"encoding/binary"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Scratch is what Rows needs so as not to allocate. The zero value is ready.
type Scratch struct {
	scale, min []float32 // of a block's channels
	row        []float32 // a token's, in whole words
	cos, sin   []float32
	outliers   []quant.Outlier
}

// Page is one KV head's share of one layer of a coded page.
type Page struct {
	Coded       []byte
	Layer, Head int
}

// Rows writes tokens [lo, hi) of one half of a page to dst ([token - lo][HeadDim]),
// K of kvquant as it is before RoPE.
func (s *Scratch) Rows(dst []float32, g *quant.Geometry, p Page, half, lo, hi int) {
	if !g.Format.Dequantised() {
		panic("BUG: widening a page of format " + g.Format.Name)
	}
	dst = dst[:(hi-lo)*g.HeadDim]
	page := p.Coded
	switch {
	case g.Format.Family == quant.FamilyKVQuant:
		s.levels(dst, g, p, half, lo)
	case g.Format.Family == quant.FamilyGroup, g.Format.Family == quant.FamilyCacheGen:
		groups(dst, g, page, half, lo)
	case half == quant.HalfK:
		s.keys(dst, g, page, lo)
	default:
		values(dst, g, page, lo)
	}
}

// groups widens int8, int4 and cachegen.
func groups(dst []float32, g *quant.Geometry, page []byte, half, t int) {
	l := &g.Group
	h := &l.Halves[half]
	for ; len(dst) > 0; t, dst = t+1, dst[l.HeadDim:] {
		for group := range l.Groups {
			at := group*g.Format.PageTokens + t
			scale, zero := tensor.GetF16(page[h.Scales:], at), float32(0)
			if h.Bits == 4 {
				zero = tensor.GetF16(page[h.Zeros:], at)
			}
			from := group * l.Width / l.Groups
			for c := from; c < min(from+l.Width/l.Groups, l.HeadDim); c++ {
				dst[c] = float32(scale*float32(l.Code(page, half, t, c))) + zero
			}
		}
		if l.Delta > 0 && t%l.Delta > 0 { // the difference from the anchor
			at := t - t%l.Delta
			scale := tensor.GetF16(page[h.Scales:], at)
			for c := range l.HeadDim {
				dst[c] += float32(scale * float32(l.Code(page, half, at, c)))
			}
		}
	}
}

// keys widens kivi's K, whose parameters are of a channel of a block of tokens.
func (s *Scratch) keys(dst []float32, g *quant.Geometry, page []byte, t int) {
	l, d := &g.Hack[quant.HalfK], g.HeadDim
	width := (d + 15) / 16 * 16 // in whole words
	if cap(s.scale) < width {
		s.scale, s.min, s.row = make([]float32, width), make([]float32, width), make([]float32, width)
	}
	scale, m, row := s.scale[:width], s.min[:width], s.row[:width]
	block := -1
	for ; len(dst) > 0; t, dst = t+1, dst[d:] {
		if b := t / g.Format.Partition; b != block {
			block = b
			for c := range d {
				scale[c], m[c] = tensor.GetF16(page[l.Scale:], b*d+c), tensor.GetF16(page[l.Min:], b*d+c)
			}
		}
		for w := range width / 16 {
			x, sw, mw := (*[16]float32)(row[16*w:]), (*[16]float32)(scale[16*w:]), (*[16]float32)(m[16*w:])
			at := 4 * quant.KeyWord(l.Width, t, w)
			top := binary.LittleEndian.Uint32(page[l.Planes[0]+at:])
			if l.NPlanes == 1 {
				for b := range 4 { // byte b has channels b, 4+b, 8+b and 12+b
					x[b] = float32(sw[b]*float32(int32(top&3))) + mw[b]
					x[4+b] = float32(sw[4+b]*float32(int32(top>>2&3))) + mw[4+b]
					x[8+b] = float32(sw[8+b]*float32(int32(top>>4&3))) + mw[8+b]
					x[12+b] = float32(sw[12+b]*float32(int32(top>>6&3))) + mw[12+b]
					top >>= 8
				}
				continue
			}
			low := binary.LittleEndian.Uint32(page[l.Planes[1]+at:])
			for b := range 4 {
				for j := b; j < 16; j += 4 {
					x[j] = float32(sw[j]*float32(int32(top&3<<2|low&3))) + mw[j]
					top, low = top>>2, low>>2
				}
			}
		}
		copy(dst[:d], row)
	}
}

// fill sets table to the values of the codes with parameters i.
func fill(table []float32, page []byte, l *quant.HackHalf, i int) {
	scale, m := tensor.GetF16(page[l.Scale:], i), tensor.GetF16(page[l.Min:], i)
	for code := range table {
		table[code] = float32(scale*float32(code)) + m
	}
}

// values widens kivi's V, whose parameters are of a part of a token's channels;
// the 32 channels of a group of words lie in one part.
func values(dst []float32, g *quant.Geometry, page []byte, t int) {
	l, d := &g.Hack[quant.HalfV], g.HeadDim
	var table [16]float32
	for ; len(dst) > 0; t, dst = t+1, dst[d:] {
		for group := range (d + 31) / 32 {
			first := 32 * group
			fill(table[:1<<g.Format.Bits], page, l, t*l.Parts+first/l.PartWidth)
			x := dst[first:min(first+32, d)]
			at := 4*quant.ValueWord(l.Width, t/4, group, 0) + t%4 // of eight words, a byte of each
			top := page[l.Planes[0]+at:]
			if l.NPlanes == 1 {
				for c := range 8 {
					b := top[4*c]
					for i := c; i < len(x); i += 8 {
						x[i] = table[b&3]
						b >>= 2
					}
				}
				continue
			}
			low := page[l.Planes[1]+at:]
			for c := range 8 {
				b, b2 := top[4*c], low[4*c]
				for i := c; i < len(x); i += 8 {
					x[i] = table[b&3<<2|b2&3]
					b, b2 = b>>2, b2>>2
				}
			}
		}
	}
}
