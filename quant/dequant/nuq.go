package dequant

import (
	"encoding/binary"
	"math"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// NUQ is the values that one head's K (before RoPE) or V of one layer of a coded page
// of kvquant stands for, [token][channel]: what the model's fit says and where the
// outliers are.
func NUQ(g *quant.Geometry, fit *quant.NUQ, coded []byte, layer, head, half int) []float64 {
	page, l, d := g.CodedHead(coded, head), &g.NUQ[half], g.HeadDim
	levels := quant.NUQBook(fit.Levels, layer, half, g.Format.Bits)
	x := make([]float64, g.Format.PageTokens*d)
	for t := range g.Format.PageTokens {
		for c := range d {
			i := (layer*g.KVHeads+head)*d + c
			lo, hi := float64(fit.Low[i]), float64(fit.High[i])
			scale, zero := (hi-lo)/2, (hi+lo)/2
			if half == quant.HalfV {
				scale, zero = half16(page, l.Scale, t), half16(page, l.Zero, t)
			}
			x[t*d+c] = float64(levels[nuqCode(g, page, half, t, c)])*scale + zero
		}
	}
	entry := func(at int) {
		word := binary.LittleEndian.Uint32(page[at:])
		x[word&0xffff] = float64(tensor.F16ToF32(uint16(word >> 16)))
	}
	if half == quant.HalfK {
		for i := range binary.LittleEndian.Uint32(page[l.Exact:]) {
			entry(l.Exact + 4 + 4*int(i))
		}
		return x
	}
	for i := range g.Format.PageTokens * l.Slots {
		if place := int(binary.LittleEndian.Uint16(page[l.Exact+4*i:])); place/d == i/l.Slots {
			entry(l.Exact + 4*i)
		}
	}
	return x
}

// Turned is rows of K before RoPE, [token][channel], of a page that begins at
// position first, after it.
func Turned(rows []float64, d int, fit *quant.NUQ, first int) []float64 {
	x := append([]float64(nil), rows...)
	for t := range len(x) / d {
		for i, f := range fit.Inverse {
			a, b := i, i+len(fit.Inverse)
			if fit.Interleaved {
				a, b = 2*i, 2*i+1
			}
			sin, cos := math.Sincos(float64(first+t) * float64(f))
			x[t*d+a], x[t*d+b] = rows[t*d+a]*cos-rows[t*d+b]*sin, rows[t*d+b]*cos+rows[t*d+a]*sin
		}
	}
	return x
}

func nuqCode(g *quant.Geometry, page []byte, half, t, c int) int {
	l := &g.NUQ[half]
	code := planeCode(page[l.Low:], half, l.Width, t, c)
	switch g.Format.Bits {
	case 3:
		code += 4 * (planeCode(page[l.High:], half, l.HighWidth, t, c%l.HighWidth) >> (c / l.HighWidth) & 1)
	case 4:
		code += 4 * planeCode(page[l.High:], half, l.HighWidth, t, c)
	}
	return code
}
