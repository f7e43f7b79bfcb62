package hack

import "github.com/terse-llm/terse/quant"

// quantiseQueries codes the item's n queries, once for all tiles.
func (a *Attender) quantiseQueries(n int) {
	l, d := &a.g.Hack[quant.HalfK], a.g.HeadDim
	for p := range l.Parts {
		lo, hi := l.Part(p, d)
		a.kernels.quantise(a.rounds[roundQ], a.qa[p:], l.Parts, a.q[lo:], l.Width, a.queries(0, n)[lo:], d, hi-lo, lo, 1)
	}
}

// multiplyKeys sets sums to the products of the block's queries, coded in q, with
// the codes of a tile's tokens, per partition.
func (a *Attender) multiplyKeys(t *piece, q []byte, tokens Span) {
	l, ld := &a.g.Hack[quant.HalfK], a.g.Format.PageTokens
	clear(a.sums[:l.Parts*Lanes*ld]) // a few more than are used
	for p := range l.Parts {
		dots := a.sums[p*Lanes*ld:][:Lanes*ld]
		for i, plane := range t.k.planes {
			a.kernels.QK(dots, ld, a.n, q, plane, words(l, p, a.g.HeadDim), tokens, 2*(l.NPlanes-1-i))
		}
	}
}

// seen are the tokens of a tile that any vector of the block sees, out to whole
// steps of the kernels.
func (p *piece) seen() Span {
	lo := p.Lo / keyStep * keyStep
	return Span{lo, (p.hi - lo + keyStep - 1) / keyStep * keyStep}
}

// keepScores rounds a lane's scores of a tile's page tokens from lo on into place.
func (a *Attender) keepScores(p *piece, lane, lo int, s []float64) {
	if lo < p.Lo { // what lies before is another tile's
		s, lo = s[p.Lo-lo:], p.Lo
	}
	a.kernels.Narrow(a.row(lane, p.at+lo)[:len(s)], s)
}

// scores computes Σ_p sq·sk·Σq'k' + mk·sq·Σq' + mq·sk·Σk' + n·mq·mk. The terms
// partly cancel, hence float64.
func (a *Attender) scores(t *piece) {
	l, d, ld := &a.g.Hack[quant.HalfK], a.g.HeadDim, a.g.Format.PageTokens
	span := t.seen()
	a.multiplyKeys(t, a.q[a.first*l.Width:], span)
	for lane := range a.n {
		s := a.score[span.Lo : span.Lo+span.N]
		clear(s)
		for p := range l.Parts {
			lo, hi := l.Part(p, d)
			q, at := &a.qa[(a.first+lane)*l.Parts+p], p*ld+span.Lo
			dots := a.sums[(p*Lanes+lane)*ld+span.Lo:]
			sq, mq := float64(q.scale), float64(q.min)
			a.kernels.Affine(s, dots, t.k.scale[at:], t.k.min[at:], t.k.sums[at:], sq, mq, sq*float64(q.sum)+float64(hi-lo)*mq)
		}
		a.keepScores(t, lane, span.Lo, s)
	}
}

// weights are the block's weights of a tile's block of tokens, [lane][ld]: 0 for
// tokens that are another tile's.
func (a *Attender) weights(p *piece, first int) (w []float32, ld int) {
	width := a.g.Format.Partition
	if p.Lo <= first && first+width <= p.Hi {
		return a.lent.W[p.at+first:], GroupTokens
	}
	clear(a.part)
	lo, hi := max(first, p.Lo), min(first+width, p.Hi)
	for lane := range a.n {
		copy(a.part[lane*width+lo-first:], a.row(lane, p.at+lo)[:hi-lo])
	}
	return a.part, width
}

// multiplyValues sets sums, [lane][width], to the products of the coded weights of a
// tile's block of tokens with the codes of groups of channels.
func (a *Attender) multiplyValues(t *piece, groups Span, block int) {
	l := &a.g.Hack[quant.HalfV]
	clear(a.sums[32*groups.Lo:][:(a.n-1)*l.Width+32*groups.N])
	width := a.g.Format.Partition
	for i, plane := range t.v.planes {
		plane.Data = plane.Data[block*width/4*plane.Width:]
		a.kernels.PV(a.sums, l.Width, a.n, a.codes, width, plane, groups, Span{0, width / 4}, 2*(l.NPlanes-1-i))
	}
}

// values adds Σ_blocks sp·sv·Σp'v' + mv·sp·Σp' + mp·sv·Σv' + Π·mp·mv. A block is
// always quantised whole: tokens that a vector does not see weigh 0, which is then
// the least weight and has code 0.
func (a *Attender) values(t *piece) {
	l, d, width := &a.g.Hack[quant.HalfV], a.g.HeadDim, a.g.Format.Partition
	for block := t.Lo / width; block*width < t.hi; block++ {
		first := block * width
		w, ld := a.weights(t, first)
		a.kernels.quantise(a.coding(roundP), a.a[:], 1, a.codes, width, w, ld, width, t.First+first, 1)
		a.multiplyValues(t, Span{0, l.Width / 32}, block)
		for lane := range a.n {
			if t.end[lane] == t.Lo {
				continue
			}
			p, at := &a.a[lane], block*d
			sp, mp := float64(p.scale), float64(p.min)
			a.kernels.Affine(a.out[lane*d:][:d], a.sums[lane*l.Width:], t.v.scale[at:], t.v.min[at:], t.v.sums[at:],
				sp, mp, sp*float64(p.sum)+float64(width)*mp)
		}
	}
}
