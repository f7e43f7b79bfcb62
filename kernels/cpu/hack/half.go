package hack

import (
	"encoding/binary"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// half is a tile's K or V: its planes as they lie in the page, and its numbers
// widened and turned so that lanes are tokens in K and channels in V.
type half struct {
	planes []Plane // most significant first
	array  [4]Plane
	// scale and min are, per token and partition of the channels, [part][token],
	// and, per block of tokens and channel, [block][channel].
	scale, min []float64
	sums       []float64 // of the codes; K: [part][token]; V: [block][channel]
	dots       []int32   // se=off: the same, before they are widened
}

func (h *half) load(k Kernels, g *quant.Geometry, coded []byte, head, which int) {
	l, page, tokens := &g.Hack[which], g.CodedHead(coded, head), g.Format.PageTokens
	h.planes = h.array[:l.NPlanes]
	for i := range h.planes {
		h.planes[i] = Plane{page[l.Planes[i]:][:tokens*l.Width/4], l.Width}
	}
	inner, outer := g.HeadDim, l.Blocks // as they lie in the page
	if l.PerToken {
		inner, outer = l.Parts, tokens
	}
	widen := tensor.F16ToF32
	if g.Format.Family == quant.FamilyHackV2 {
		widen = tensor.BF16ToF32
	}
	h.min, h.scale = grow(h.min, inner*outer), grow(h.scale, inner*outer)
	at := func(i int) int { return i }
	if l.PerToken {
		at = func(i int) int { return i%inner*outer + i/inner }
	}
	for i := range inner * outer {
		h.min[at(i)] = float64(widen(binary.LittleEndian.Uint16(page[l.Min+2*i:])))
		h.scale[at(i)] = float64(widen(binary.LittleEndian.Uint16(page[l.Scale+2*i:])))
	}
	h.loadSums(k, g, l, page, which)
}

// loadSums reads the stored sums of codes (summation elimination), or adds up what
// would have been stored.
func (h *half) loadSums(k Kernels, g *quant.Geometry, l *quant.HackHalf, page []byte, which int) {
	tokens := g.Format.PageTokens
	n := l.Blocks * g.HeadDim
	if which == quant.HalfK {
		n = tokens * l.Parts
	}
	h.sums = grow(h.sums, n)
	if l.Sums < 0 {
		h.sumCodes(k, g, l, which)
		return
	}
	for i := range n {
		sum := float64(page[l.Sums+i*l.SumBytes])
		if l.SumBytes == 2 {
			sum = float64(binary.LittleEndian.Uint16(page[l.Sums+2*i:]))
		}
		if which == quant.HalfK {
			h.sums[i%l.Parts*tokens+i/l.Parts] = sum
		} else {
			h.sums[i] = sum
		}
	}
}

// sumCodes adds up the codes: their products with ones.
func (h *half) sumCodes(k Kernels, g *quant.Geometry, l *quant.HackHalf, which int) {
	var ones [maxWidth]byte
	for i := range ones {
		ones[i] = 1
	}
	tokens := g.Format.PageTokens
	h.dots = grow(h.dots, max(tokens, l.Width))
	outer := l.Blocks
	if which == quant.HalfK {
		outer = l.Parts
	}
	for i := range outer {
		clear(h.dots)
		for j, plane := range h.planes {
			shift := 2 * (l.NPlanes - 1 - j)
			if which == quant.HalfK {
				k.QK(h.dots, tokens, 1, ones[:], plane, words(l, i, g.HeadDim), Span{0, tokens}, shift)
			} else {
				k.PV(h.dots, l.Width, 1, ones[:], tokens, plane, Span{0, l.Width / 32}, quads(g, i), shift)
			}
		}
		n := len(h.sums) / outer
		for at := range n {
			h.sums[i*n+at] = float64(h.dots[at])
		}
	}
}

// maxWidth is the most channels of a plane.
const maxWidth = 1024

// words are the words of partition p of d channels in K.
func words(l *quant.HackHalf, p, d int) Span {
	lo, hi := l.Part(p, d)
	return Span{lo / 16, (hi - lo + 15) / 16}
}

// quads are the quads of tokens of a block.
func quads(g *quant.Geometry, block int) Span {
	n := g.Format.Partition / 4
	return Span{block * n, n}
}
