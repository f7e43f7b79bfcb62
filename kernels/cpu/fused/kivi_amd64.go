//go:build !purego

package fused

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
)

// KIVI is the kernels for pages of kivi with 2 bits and what they need, which serves
// one caller at a time. Levels without such kernels have none: there pages are widened
// (package widen).
type KIVI struct {
	q    [batch][]float32 // vectors times the scales of a block's channels, [Width of K], side by side
	sums [batch]float32   // and their products with its mins
	flat []float32        // q's memory
}

// HasKIVI reports whether the level has kernels for g's pages.
func (k Kernels) HasKIVI(g *quant.Geometry) bool {
	return (k.level == cpu.AVX2 || k.level == cpu.AVX512) && g.Format.Family == quant.FamilyKIVI && g.Format.Bits == 2
}

// QK sets w[i·ld + t] to the product of vector i (of n, HeadDim channels each, in q) and
// token t of a page's K. next, which may be nil, is fetched meanwhile.
func (s *KIVI) QK(k Kernels, w []float32, ld int, q []float32, n int, g *quant.Geometry, page, next []byte) {
	l, d := &g.Hack[quant.HalfK], g.HeadDim
	if n == 0 {
		return
	}
	if !k.HasKIVI(g) || n < 0 || len(page) < g.HeadBytes || ld < pageTokens || len(w) < (n-1)*ld+pageTokens || len(q) < n*d {
		panic("BUG: fused attention beyond its slices")
	}
	s.fit(l.Width, d)
	for i := 0; i < n; {
		m := batchOf(n - i)
		for block := range l.Blocks {
			params, t := 2*block*d, block*g.Format.Partition
			for j := range m {
				k.kiviFold(s.q[j], &s.sums[j], q[(i+j)*d:], page[l.Scale+params:], page[l.Min+params:], d)
			}
			k.kiviQK(m, w[i*ld+t:], ld, page[l.Planes[0]+4*quant.KeyWord(l.Width, t, 0):], l.Width, s, g.Format.Partition, next)
			next = nil // fetched
		}
		i += m
	}
}

// fit makes room for vectors of width channels, of which those from d on are 0.
func (s *KIVI) fit(width, d int) {
	s.flat = grow(s.flat, batch*width)
	for j := range s.q {
		s.q[j] = s.flat[j*width : (j+1)*width]
		clear(s.q[j][d:])
	}
}

// PV adds Σ_t w[i·ld + t]·V_t to vector i (of n, Width of V channels each) of acc. All 64
// tokens count: those not seen must weigh 0.
func (s *KIVI) PV(k Kernels, acc []float32, n int, w []float32, ld int, g *quant.Geometry, page, next []byte) {
	l := &g.Hack[quant.HalfV]
	if n == 0 {
		return
	}
	if !k.HasKIVI(g) || n < 0 || len(page) < g.HeadBytes || ld < pageTokens || len(w) < (n-1)*ld+pageTokens || len(acc) < n*l.Width {
		panic("BUG: fused attention beyond its slices")
	}
	for i := 0; i < n; {
		m := batchOf(n - i)
		for group := range l.Width / 32 {
			k.kiviPV(m, acc[i*l.Width+32*group:], w[i*ld:], ld, l, page, group)
			if i == 0 {
				fetchPart(next, group, l.Width/32)
			}
		}
		i += m
	}
}

// kiviFold makes a vector ready for a block.
func (k Kernels) kiviFold(dst []float32, sum *float32, q []float32, scale, least []byte, d int) {
	kiviFoldAVX2(&dst[0], sum, &q[0], &scale[0], &least[0], d/8)
}

// kiviQK is QK of one block.
func (k Kernels) kiviQK(n int, w []float32, ld int, plane []byte, width int, s *KIVI, tokens int, next []byte) {
	if len(next) > 0 {
		fetch(&next[0], len(next))
	}
	wp, codes, words, q, sums, sixteens := &w[0], &plane[0], width/16, &s.flat[0], &s.sums[0], tokens/16
	switch wide := k.level == cpu.AVX512; {
	case n == 4 && wide:
		kiviQK4AVX512(wp, ld, codes, words, q, sums, sixteens)
	case n == 4:
		kiviQK4AVX2(wp, ld, codes, words, q, sums, sixteens)
	case n == 2 && wide:
		kiviQK2AVX512(wp, ld, codes, words, q, sums, sixteens)
	case n == 2:
		kiviQK2AVX2(wp, ld, codes, words, q, sums, sixteens)
	case wide:
		kiviQK1AVX512(wp, ld, codes, words, q, sums, sixteens)
	default:
		kiviQK1AVX2(wp, ld, codes, words, q, sums, sixteens)
	}
}

// kiviPV is PV of 32 channels.
func (k Kernels) kiviPV(n int, acc, w []float32, ld int, l *quant.HackHalf, page []byte, group int) {
	part := 2 * (32 * group / l.PartWidth)
	codes, scale, least := &page[l.Planes[0]+32*group], &page[l.Scale+part], &page[l.Min+part]
	wp, quads, octets, parts, width := &w[0], pageTokens/4, l.Width/32, l.Parts, l.Width
	switch {
	case k.level == cpu.AVX512 && n == 4:
		kiviPV4AVX512(&acc[0], width, wp, ld, codes, octets, scale, least, parts, quads, 0)
	case k.level == cpu.AVX512 && n == 2:
		kiviPV2AVX512(&acc[0], width, wp, ld, codes, octets, scale, least, parts, quads, 0)
	case k.level == cpu.AVX512:
		kiviPV1AVX512(&acc[0], width, wp, ld, codes, octets, scale, least, parts, quads, 0)
	default:
		for _, first := range [...]int{0, 2} {
			switch to := &acc[8*first]; n {
			case 4:
				kiviPV4AVX2(to, width, wp, ld, codes, octets, scale, least, parts, quads, first)
			case 2:
				kiviPV2AVX2(to, width, wp, ld, codes, octets, scale, least, parts, quads, first)
			default:
				kiviPV1AVX2(to, width, wp, ld, codes, octets, scale, least, parts, quads, first)
			}
		}
	}
}

// fetchPart fetches part i of n of next.
func fetchPart(next []byte, i, n int) {
	if part := len(next) / n; part > 0 {
		fetch(&next[i*part], part)
	}
}
