//go:build !purego

package widen

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
)

//go:generate go run -C ../_asm ./widen -out ../widen/widen_amd64.s -stubs ../widen/widen_amd64.go -pkg widen

// octet is how many tokens' words of K lie side by side.
const octet = 8

// rows is Rows, and reports whether the level has kernels.
func (k Kernels) rows(dst []float32, g *quant.Geometry, page []byte, half, lo, hi int, next []byte) bool {
	if k.level != cpu.AVX2 && k.level != cpu.AVX512 {
		return false
	}
	for lo < hi {
		n := min(hi, lo/octet*octet+octet) - lo
		if half == quant.HalfK {
			k.keys(dst, g, page, lo, n)
		} else {
			for i := range n {
				k.values(dst[i*g.HeadDim:], g, page, lo+i)
			}
		}
		fetchPart(next, lo, g.Format.PageTokens)
		dst = dst[n*g.HeadDim:]
		lo += n
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

// fetchPart fetches the part of next that belongs to the octet of token t.
func fetchPart(next []byte, t, tokens int) {
	part := len(next) * octet / tokens
	at := t / octet * part
	if part > 0 && at+part <= len(next) {
		fetch(&next[at], part)
	}
}
