//go:build !purego

package widen

import (
	"encoding/binary"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
)

//go:generate go run -C ../_asm ./widen -out ../widen/widen_amd64.s -stubs ../widen/widen_amd64.go -pkg widen

// octet is how many tokens' words of K lie side by side.
const octet = 8

// rows is Rows, and reports whether the level has kernels.
func (k Kernels) rows(dst []float32, g *quant.Geometry, p baseline.Page, half, lo, hi int, next []byte) bool {
	if k.level != cpu.AVX2 && k.level != cpu.AVX512 {
		return false
	}
	learned := g.Format.Family == quant.FamilyKVQuant
	var levels [16]float32
	if learned {
		book := g.Tables.Levels(p.Layer, half)
		for i := range levels {
			levels[i] = book[i%len(book)]
		}
	}
	whole, first := dst, lo
	for lo < hi {
		n := min(hi, lo/octet*octet+octet) - lo
		switch {
		case learned && half == quant.HalfK:
			k.levelKeys(dst, g, p, &levels, lo, n)
		case half == quant.HalfK:
			k.keys(dst, g, p.Coded, lo, n)
		default:
			for i := range n {
				if learned {
					k.levelValues(dst[i*g.HeadDim:], g, p.Coded, &levels, lo+i)
				} else {
					k.values(dst[i*g.HeadDim:], g, p.Coded, lo+i)
				}
			}
		}
		fetchPart(next, lo, g.Format.PageTokens)
		dst = dst[n*g.HeadDim:]
		lo += n
	}
	if learned && first < hi {
		restoreOutliers(whole, g, p.Coded, half, first, hi)
	}
	return true
}

// restoreOutliers is baseline.Scratch.Restore.
func restoreOutliers(dst []float32, g *quant.Geometry, page []byte, half, lo, hi int) {
	l, d := &g.NUQ[half], g.HeadDim
	if half == quant.HalfV {
		restoreAVX2(&dst[0], &page[l.Exact+4*l.Slots*lo], l.Slots, hi-lo, lo*d, d)
	} else if n := min(binary.LittleEndian.Uint32(page[l.Exact:]), uint32(l.Slots)); n > 0 {
		restoreAVX2(&dst[0], &page[l.Exact+4], int(n), 1, lo*d, (hi-lo)*d)
	}
}

// turn is Turn of channels that lie in two halves.
func (k Kernels) turn(rows []float32, d, n int, cos, sin []float32, pairs int) bool {
	switch k.level {
	case cpu.AVX2:
		turnAVX2(&rows[0], d, n, &cos[0], &sin[0], pairs)
	case cpu.AVX512:
		turnAVX512(&rows[0], d, n, &cos[0], &sin[0], pairs)
	default:
		return false
	}
	return true
}

// keys widens n tokens of one octet.
func (k Kernels) keys(dst []float32, g *quant.Geometry, page []byte, t, n int) {
	l, d := &g.Hack[quant.HalfK], g.HeadDim
	word, params := 4*quant.KeyWord(l.Width, t, 0), 2*(t/g.Format.Partition*d)
	top, low := &page[l.Planes[0]+word], &page[l.Planes[l.NPlanes-1]+word]
	scale, least := &page[l.Scale+params], &page[l.Min+params]
	switch {
	case k.level == cpu.AVX2 && l.NPlanes == 1:
		keys2AVX2(&dst[0], 4*d, top, low, scale, least, d, n)
	case k.level == cpu.AVX2:
		keys4AVX2(&dst[0], 4*d, top, low, scale, least, d, n)
	case l.NPlanes == 1:
		keys2AVX512(&dst[0], 4*d, top, low, scale, least, d, n)
	default:
		keys4AVX512(&dst[0], 4*d, top, low, scale, least, d, n)
	}
}

// values widens a token.
func (k Kernels) values(dst []float32, g *quant.Geometry, page []byte, t int) {
	l, d := &g.Hack[quant.HalfV], g.HeadDim
	word, params, wide := 4*quant.ValueWord(l.Width, t/4, 0, 0), 2*t*l.Parts, (l.PartWidth-1)/32
	top, low := &page[l.Planes[0]+word], &page[l.Planes[l.NPlanes-1]+word]
	scale, least := &page[l.Scale+params], &page[l.Min+params]
	switch {
	case k.level == cpu.AVX2 && l.NPlanes == 1:
		values2AVX2(&dst[0], top, low, t%4, scale, least, d, wide)
	case k.level == cpu.AVX2:
		values4AVX2(&dst[0], top, low, t%4, scale, least, d, wide)
	case l.NPlanes == 1:
		values2AVX512(&dst[0], top, low, t%4, scale, least, d, wide)
	default:
		values4AVX512(&dst[0], top, low, t%4, scale, least, d, wide)
	}
}

// levelKeys is keys for kvquant. With 3 bits the third ones of the upper channels lie
// beside those of the lower, one place on.
func (k Kernels) levelKeys(dst []float32, g *quant.Geometry, p baseline.Page, levels *[16]float32, t, n int) {
	l, d := &g.NUQ[quant.HalfK], g.HeadDim
	scale, zero := g.Tables.Keys(g, p.Layer, p.Head)
	end := d
	if g.Format.Bits == 3 {
		end = min(d, l.HighWidth)
	}
	low := p.Coded[l.Low+4*quant.KeyWord(l.Width, t, 0):]
	high := low
	if l.High >= 0 {
		high = p.Coded[l.High+4*quant.KeyWord(l.HighWidth, t, 0):]
	}
	k.levelKeysOf(g.Format.Bits, &dst[0], 4*d, &low[0], &high[0], 0, &scale[0], &zero[0], &levels[0], end, n)
	if end < d {
		k.levelKeysOf(3, &dst[end], 4*d, &low[2*end], &high[0], 1, &scale[end], &zero[end], &levels[0], d-end, n)
	}
}

func (k Kernels) levelKeysOf(bits int, dst *float32, stride int, low, high *byte, third int, scale, zero, levels *float32, channels, n int) {
	wide := k.level == cpu.AVX512
	switch {
	case bits == 2 && wide:
		levelKeys2AVX512(dst, stride, low, high, third, scale, zero, levels, channels, n)
	case bits == 2:
		levelKeys2AVX2(dst, stride, low, high, third, scale, zero, levels, channels, n)
	case bits == 3 && wide:
		levelKeys3AVX512(dst, stride, low, high, third, scale, zero, levels, channels, n)
	case bits == 3:
		levelKeys3AVX2(dst, stride, low, high, third, scale, zero, levels, channels, n)
	case wide:
		levelKeys4AVX512(dst, stride, low, high, third, scale, zero, levels, channels, n)
	default:
		levelKeys4AVX2(dst, stride, low, high, third, scale, zero, levels, channels, n)
	}
}

// levelValues is values for kvquant.
func (k Kernels) levelValues(dst []float32, g *quant.Geometry, page []byte, levels *[16]float32, t int) {
	l, d := &g.NUQ[quant.HalfV], g.HeadDim
	end := d
	if g.Format.Bits == 3 {
		end = min(d, l.HighWidth)
	}
	low := page[l.Low+4*quant.ValueWord(l.Width, t/4, 0, 0):]
	high := low
	if l.High >= 0 {
		high = page[l.High+4*quant.ValueWord(l.HighWidth, t/4, 0, 0):]
	}
	scale, zero := &page[l.Scale+2*t], &page[l.Zero+2*t]
	k.levelValuesOf(g.Format.Bits, &dst[0], &low[0], &high[0], 0, t%4, scale, zero, &levels[0], end)
	if end < d {
		k.levelValuesOf(3, &dst[end], &low[end], &high[0], 1, t%4, scale, zero, &levels[0], d-end)
	}
}

func (k Kernels) levelValuesOf(bits int, dst *float32, low, high *byte, third, b int, scale, zero *byte, levels *float32, channels int) {
	wide := k.level == cpu.AVX512
	switch {
	case bits == 2 && wide:
		levelValues2AVX512(dst, low, high, third, b, scale, zero, levels, channels)
	case bits == 2:
		levelValues2AVX2(dst, low, high, third, b, scale, zero, levels, channels)
	case bits == 3 && wide:
		levelValues3AVX512(dst, low, high, third, b, scale, zero, levels, channels)
	case bits == 3:
		levelValues3AVX2(dst, low, high, third, b, scale, zero, levels, channels)
	case wide:
		levelValues4AVX512(dst, low, high, third, b, scale, zero, levels, channels)
	default:
		levelValues4AVX2(dst, low, high, third, b, scale, zero, levels, channels)
	}
}

// fetchPart fetches the part of next that belongs to the octet of token t.
func fetchPart(next []byte, t, tokens int) {
	part := len(next) * octet / tokens
	at := t / octet * part
	if part > 0 && at+part <= len(next) {
		fetch(&next[at], part)
	}
}
