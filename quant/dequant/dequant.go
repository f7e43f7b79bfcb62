package dequant

import (
	"encoding/binary"
	"math/bits"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Exact is one head's K or V of one layer of an exact page, [token][channel].
func Exact(g *quant.Geometry, layer []byte, head, half int) []float64 {
	src := g.ExactK(layer, head)
	if half == quant.HalfV {
		src = g.ExactV(layer, head)
	}
	x := make([]float64, g.Format.PageTokens*g.HeadDim)
	for i := range x {
		x[i] = float64(tensor.GetF16(src, i))
	}
	return x
}

// Codes is the codes of one head's K or V of one layer of a coded page, [token]
// [channel], and the number of bits of every one of them.
func Codes(g *quant.Geometry, layer []byte, head, half int) (codes, width []int) {
	page := g.CodedHead(layer, head)
	n := g.Format.PageTokens * g.HeadDim
	codes, width = make([]int, n), make([]int, n)
	for t := range g.Format.PageTokens {
		for c := range g.HeadDim {
			i := t*g.HeadDim + c
			switch g.Format.Family {
			case quant.FamilyHQ:
				codes[i], width[i] = hqCode(g, page, half, t, c)
			case quant.FamilyGroup, quant.FamilyCacheGen:
				codes[i], width[i] = groupCode(g, page, half, t, c), g.Group.Halves[half].Bits
			case quant.FamilyKVQuant:
				codes[i], width[i] = nuqCode(g, page, half, t, c), g.Format.Bits
			default:
				codes[i], width[i] = hackCode(&g.Hack[half], page, half, t, c), g.Format.Bits
			}
		}
	}
	return codes, width
}

// Half is the values that the codes of one head's K or V stand for, [token]
// [channel].
func Half(g *quant.Geometry, layer []byte, head, half int) []float64 {
	page := g.CodedHead(layer, head)
	codes, width := Codes(g, layer, head, half)
	x := make([]float64, len(codes))
	for i, code := range codes {
		t, c := i/g.HeadDim, i%g.HeadDim
		scale, zero := Params(g, page, half, t, c, width[i])
		x[i] = scale*float64(code) + zero
		if n := g.Format.Delta; n > 0 && t%n > 0 { // the difference from the anchor
			x[i] += x[(t-t%n)*g.HeadDim+c]
		}
	}
	return x
}

// TopPlane is the values that the top planes of an hq half stand for when the
// second plane is dropped: scale 4s and zero z + 1.5s where there was one.
func TopPlane(g *quant.Geometry, layer []byte, head, half int) []float64 {
	page := g.CodedHead(layer, head)
	codes, width := Codes(g, layer, head, half)
	x := make([]float64, len(codes))
	for i, code := range codes {
		t, c := i/g.HeadDim, i%g.HeadDim
		scale, zero := Params(g, page, half, t, c, width[i])
		if width[i] == 4 {
			code, scale, zero = code>>2, 4*scale, zero+1.5*scale
		}
		x[i] = scale*float64(code) + zero
	}
	return x
}

// Params is the scale and the zero (the min of hack formats) of one element
// with codes of the given number of bits.
func Params(g *quant.Geometry, page []byte, half, t, c, width int) (scale, zero float64) {
	if g.Format.Family == quant.FamilyHQ {
		l := &g.HQ[half]
		s := segmentOf(l, c)
		scale = half16(page, s.Scale, t)
		if s.Shared {
			scale /= 4
		}
		if s.Zero >= 0 {
			zero = half16(page, s.Zero, t)
		}
		if l.Refined && width == 4 {
			scale, zero = scale/4, zero-1.5*scale/4
		}
		if s.Zero >= 0 {
			return scale, zero
		}
		return scale, -scale * float64(int(1)<<width-1) / 2
	}
	if g.Format.Family == quant.FamilyGroup || g.Format.Family == quant.FamilyCacheGen {
		h, i := &g.Group.Halves[half], c/64*64+t
		if width == 4 {
			zero = half16(page, h.Zeros, i)
		}
		return half16(page, h.Scales, i), zero
	}
	l := &g.Hack[half]
	i := t/g.Format.Partition*g.HeadDim + c
	if l.PerToken {
		i = t*l.Parts + c/l.PartWidth
	}
	read := half16
	if g.Format.Family == quant.FamilyHackV2 {
		read = brain16
	}
	return read(page, l.Scale, i), read(page, l.Min, i)
}

func half16(page []byte, off, i int) float64 { return float64(tensor.GetF16(page[off:], i)) }

func brain16(page []byte, off, i int) float64 {
	return float64(tensor.BF16ToF32(binary.LittleEndian.Uint16(page[off+2*i:])))
}

func segmentOf(l *quant.HQHalf, c int) *quant.Segment {
	for i := range l.Segments[:l.NSegments] {
		if s := &l.Segments[i]; c >= s.Lo && c < s.Hi {
			return s
		}
	}
	panic("BUG: a channel outside every segment")
}

func hqCode(g *quant.Geometry, page []byte, half, t, c int) (code, width int) {
	l := &g.HQ[half]
	s := segmentOf(l, c)
	top := planeCode(page[s.Top:], half, s.Width, t, c-s.Lo)
	row := t
	if l.Mask >= 0 {
		set := binary.LittleEndian.Uint64(page[l.Mask:])
		if set>>t&1 == 0 {
			return top, 2
		}
		row = bits.OnesCount64(set & (1<<t - 1))
	}
	if s.Low < 0 {
		return top, 2
	}
	return 4*top + planeCode(page[s.Low:], half, s.Width, row, c-s.Lo), 4
}

// groupCode is a code of int8, int4 or cachegen, signed where it has 8 bits.
func groupCode(g *quant.Geometry, page []byte, half, t, c int) int {
	codes, d := page[g.Group.Halves[half].Codes:], (g.HeadDim+63)/64*64
	wide := g.Group.Halves[half].Bits == 8
	switch {
	case wide && half == quant.HalfK:
		return int(int8(codes[(t/16*d+c)*16+t%16]))
	case wide:
		return int(int8(codes[t*d+c]))
	case half == quant.HalfK: // words of eight channels, 16 tokens' side by side
		word := binary.LittleEndian.Uint32(codes[4*((t/16*(d/8)+c/8)*16+t%16):])
		return int(word >> (4 * (c % 8)) & 15)
	}
	word := binary.LittleEndian.Uint32(codes[4*(t*d/8+c/64*8+c%8):])
	return int(word >> (4 * (c % 64 / 8)) & 15)
}

func hackCode(l *quant.HackHalf, page []byte, half, t, c int) int {
	code := 0
	for _, off := range l.Planes[:l.NPlanes] {
		code = 4*code + planeCode(page[off:], half, l.Width, t, c)
	}
	return code
}

// planeCode is the 2-bit code of a row and channel of a plane width channels
// wide.
func planeCode(plane []byte, half, width, row, c int) int {
	if half == quant.HalfK {
		word := row/8*(width/16)*8 + c/16*8 + row%8
		return int(plane[4*word+c%4]>>(2*(c%16/4))) & 3
	}
	word := row/4*(width/32)*8 + c/32*8 + c%8
	return int(plane[4*word+row%4]>>(2*(c%32/8))) & 3
}
