package hack

import "github.com/terse-llm/terse/quant"

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
	turn       []float64 // an array as it lies in the page
}

func (h *half) load(k Kernels, g *quant.Geometry, coded []byte, head, which int) {
	l, page, tokens := &g.Hack[which], g.CodedHead(coded, head), g.Format.PageTokens
	h.planes = h.array[:l.NPlanes]
	for i := range h.planes {
		h.planes[i] = Plane{page[l.Planes[i]:][:tokens*l.Width/4], l.Width}
	}
	number := Float16
	if g.Format.Family == quant.FamilyHackV2 {
		number = BFloat16
	}
	rows, columns := 1, l.Blocks*g.HeadDim
	if l.PerToken {
		rows, columns = tokens, l.Parts
	}
	h.min, h.scale = grow(h.min, rows*columns), grow(h.scale, rows*columns)
	h.read(k, h.min, page[l.Min:], number, rows, columns)
	h.read(k, h.scale, page[l.Scale:], number, rows, columns)

	rows, columns = 1, l.Blocks*g.HeadDim
	if which == quant.HalfK {
		rows, columns = tokens, l.Parts
	}
	h.sums = grow(h.sums, rows*columns)
	switch {
	case l.Sums < 0: // what would have been stored (summation elimination)
		h.sumCodes(k, g, l, which)
	case l.SumBytes == 1:
		h.read(k, h.sums, page[l.Sums:], Uint8, rows, columns)
	default:
		h.read(k, h.sums, page[l.Sums:], Uint16, rows, columns)
	}
}

// read widens an array of [rows][columns] and turns it.
func (h *half) read(k Kernels, dst []float64, src []byte, number Number, rows, columns int) {
	if rows == 1 {
		k.Widen(dst, src, number)
		return
	}
	h.turn = grow(h.turn, rows*columns)
	k.Widen(h.turn, src, number)
	k.transpose(dst, h.turn, rows, columns)
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
