package hack

import "github.com/terse-llm/terse/quant"

// quantiseQueries codes the item's n queries, once for all tiles.
func (a *Attender) quantiseQueries(n int) {
	l, d := &a.g.Hack[quant.HalfK], a.g.HeadDim
	for v := range n {
		row, round := a.queries(v, 1), a.rounding(v, quant.StreamQ)
		for p := range l.Parts {
			lo, hi := l.Part(p, d)
			a.qa[v*l.Parts+p] = a.kernels.quantise(a.q[v*l.Width+lo:], row[lo:hi], round, a.g.Format.Stochastic, lo, 1)
		}
	}
}

// multiplyKeys sets sums to the products of the block's queries, coded in q, with
// the codes of tokens, per partition.
func (a *Attender) multiplyKeys(q []byte, tokens Span) {
	l, ld := &a.g.Hack[quant.HalfK], a.g.Format.PageTokens
	for p := range l.Parts {
		dots := a.sums[p*lanes*ld:][:lanes*ld]
		for lane := range a.n {
			clear(dots[lane*ld+tokens.Lo:][:tokens.N])
		}
		for i, plane := range a.k.planes {
			a.kernels.QK(dots, ld, a.n, q, plane, words(l, p, a.g.HeadDim), tokens, 2*(l.NPlanes-1-i))
		}
	}
}

// seen are the tokens that any vector of the block sees, out to whole steps of
// the kernels.
func (a *Attender) seen() Span {
	lo := a.tile.Lo / keyStep * keyStep
	return Span{lo, (a.hi - lo + keyStep - 1) / keyStep * keyStep}
}

// scores computes Σ_p sq·sk·Σq'k' + mk·sq·Σq' + mq·sk·Σk' + n·mq·mk. The terms
// partly cancel, hence float64.
func (a *Attender) scores() {
	l, d, ld := &a.g.Hack[quant.HalfK], a.g.HeadDim, a.g.Format.PageTokens
	span := a.seen()
	a.multiplyKeys(a.q[a.first*l.Width:], span)
	for lane := range a.n {
		s := a.score[span.Lo : span.Lo+span.N]
		clear(s)
		for p := range l.Parts {
			lo, hi := l.Part(p, d)
			q, at := &a.qa[(a.first+lane)*l.Parts+p], p*ld+span.Lo
			dots := a.sums[(p*lanes+lane)*ld+span.Lo:]
			sq, mq := float64(q.scale), float64(q.min)
			a.kernels.Affine(s, dots, a.k.scale[at:], a.k.min[at:], a.k.sums[at:], sq, mq, sq*float64(q.sum)+float64(hi-lo)*mq)
		}
		a.kernels.Narrow(a.w[lane*ld+span.Lo:], s)
	}
}

// quantiseWeights codes one vector's weights of a block of tokens. Those that it
// does not see weigh 0, which is then the least weight and has code 0.
func (a *Attender) quantiseWeights(lane, first int, w []float32, element, stride int) {
	codes := a.codes[lane*a.g.Format.PageTokens+first:]
	round := a.rounding(a.first+lane, quant.StreamP)
	a.a[lane] = a.kernels.quantise(codes, w, round, a.g.Format.Stochastic, element, stride)
}

// multiplyValues sets sums, [lane][width], to the products of the block's coded
// weights with the codes of groups of channels in one block of tokens.
func (a *Attender) multiplyValues(groups Span, block int) {
	l := &a.g.Hack[quant.HalfV]
	for lane := range a.n {
		clear(a.sums[lane*l.Width+32*groups.Lo:][:32*groups.N])
	}
	for i, plane := range a.v.planes {
		a.kernels.PV(a.sums, l.Width, a.n, a.codes, a.g.Format.PageTokens, plane, groups, quads(a.g, block), 2*(l.NPlanes-1-i))
	}
}

// values computes Σ_blocks sp·sv·Σp'v' + mv·sp·Σp' + mp·sv·Σv' + Π·mp·mv. A block
// is always quantised whole.
func (a *Attender) values() {
	l, d, width := &a.g.Hack[quant.HalfV], a.g.HeadDim, a.g.Format.Partition
	clear(a.out)
	for block := a.tile.Lo / width; block*width < a.hi; block++ {
		first := block * width
		for lane := range a.n {
			if a.end[lane] > a.tile.Lo {
				w := a.w[lane*a.g.Format.PageTokens+first:][:width]
				a.quantiseWeights(lane, first, w, a.tile.First+first, 1)
			}
		}
		a.multiplyValues(Span{0, l.Width / 32}, block)
		for lane := range a.n {
			p, at := &a.a[lane], block*d
			sp, mp := float64(p.scale), float64(p.min)
			a.kernels.Affine(a.out[lane*d:][:d], a.sums[lane*l.Width:], a.v.scale[at:], a.v.min[at:], a.v.sums[at:],
				sp, mp, sp*float64(p.sum)+float64(width)*mp)
		}
	}
}
