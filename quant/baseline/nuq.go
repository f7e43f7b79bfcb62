package baseline

import (
	"encoding/binary"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// levels widens kvquant: the levels of the codes, over the range of a channel of K
// or of a token of V, and the outliers in their places.
func (s *Scratch) levels(dst []float32, g *quant.Geometry, p Page, half, t int) {
	l, d := &g.NUQ[half], g.HeadDim
	levels := g.Tables.Levels(p.Layer, half)
	scale, zero := g.Tables.Keys(g, p.Layer, p.Head)
	for i := range len(dst) / d {
		row := dst[i*d : (i+1)*d]
		if half == quant.HalfK {
			for c := range row {
				row[c] = float32(levels[keyCode(l, g.Format.Bits, p.Coded, t+i, c)]*scale[c]) + zero[c]
			}
			continue
		}
		scale, zero := tensor.GetF16(p.Coded[l.Scale:], t+i), tensor.GetF16(p.Coded[l.Zero:], t+i)
		for c := range row {
			row[c] = float32(levels[valueCode(l, g.Format.Bits, p.Coded, t+i, c)]*scale) + zero
		}
	}
	s.Restore(dst, g, p.Coded, half, t)
}

// Restore puts the outliers of kvquant's tokens from t on into their rows.
func (s *Scratch) Restore(dst []float32, g *quant.Geometry, page []byte, half, t int) {
	s.outliers = g.Outliers(s.outliers[:0], page, half, t, t+len(dst)/g.HeadDim)
	for _, o := range s.outliers {
		dst[o.Place-t*g.HeadDim] = o.Value
	}
}

// Turn does to rows of K of kvquant, of tokens from t on of a page that begins at
// position first, what RoPE does.
func (s *Scratch) Turn(rows []float32, g *quant.Geometry, first, t int) {
	n := g.Tables.Pairs()
	if len(s.cos) < n {
		s.cos, s.sin = make([]float32, n), make([]float32, n)
	}
	cos, sin := s.cos[:n], s.sin[:n]
	g.Tables.Base(cos, sin, first)
	for ; len(rows) > 0; t, rows = t+1, rows[g.HeadDim:] {
		g.Tables.Turn(rows[:g.HeadDim], g.Tables.Cos[t*n:(t+1)*n], g.Tables.Sin[t*n:(t+1)*n], false)
		g.Tables.Turn(rows[:g.HeadDim], cos, sin, false)
	}
}

func keyCode(l *quant.NUQHalf, bits int, page []byte, t, c int) int {
	at := func(plane, width, c int) int {
		word := binary.LittleEndian.Uint32(page[plane+4*quant.KeyWord(width, t, c/16):])
		return int(word >> (8*(c%4) + 2*(c%16/4)) & 3)
	}
	return code(l, bits, c, at)
}

func valueCode(l *quant.NUQHalf, bits int, page []byte, t, c int) int {
	at := func(plane, width, c int) int {
		return int(page[plane+4*quant.ValueWord(width, t/4, c/32, c%8)+t%4] >> (2 * (c % 32 / 8)) & 3)
	}
	return code(l, bits, c, at)
}

// code joins the planes.
func code(l *quant.NUQHalf, bits, c int, at func(plane, width, c int) int) int {
	code := at(l.Low, l.Width, c)
	switch {
	case bits == 4:
		code += 4 * at(l.High, l.HighWidth, c)
	case bits == 3 && c < l.HighWidth:
		code += 4 * (at(l.High, l.HighWidth, c) & 1)
	case bits == 3:
		code += 4 * (at(l.High, l.HighWidth, c-l.HighWidth) >> 1)
	}
	return code
}
