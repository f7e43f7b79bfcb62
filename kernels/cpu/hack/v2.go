package hack

import "github.com/terse-llm/terse/quant"

// scoresV2 computes, block by block of K and with q̃ = q ⊙ scale ≈ sq·q̃' + mq:
// Σ_p sq·Σq̃'k' + mq·Σk' and Σ_c q·min. K's scale is per channel, so that a query
// is quantised anew for every block.
func (a *Attender) scoresV2(t *piece) {
	width := a.g.Format.Partition
	for block := t.Lo / width; block*width < t.hi; block++ {
		a.blockScores(t, block)
	}
}

func (a *Attender) blockScores(t *piece, block int) {
	l, ld, width := &a.g.Hack[quant.HalfK], a.g.Format.PageTokens, a.g.Format.Partition
	a.foldQueries(t, block)
	a.multiplyKeys(t, a.q, Span{block * width, width})
	lo, hi := max(t.Lo, block*width), min(t.hi, (block+1)*width)
	for lane := range a.n {
		s := a.score[lo:hi]
		for i := range s {
			s[i] = a.base[lane]
		}
		for p := range l.Parts {
			q, at := &a.qa[lane*l.Parts+p], p*ld+lo
			a.kernels.Affine(s, a.sums[(p*Lanes+lane)*ld+lo:], a.ones[:], a.zeros[:], t.k.sums[at:], float64(q.scale), float64(q.min), 0)
		}
		a.keepScores(t, lane, lo, s)
	}
}

// foldQueries codes the block's queries against the scales of a tile's block of
// tokens, and sets base to Σ q·min.
func (a *Attender) foldQueries(t *piece, block int) {
	l, d := &a.g.Hack[quant.HalfK], a.g.HeadDim
	scale, mins := t.k.scale[block*d:][:d], t.k.min[block*d:][:d]
	for lane := range a.n {
		a.base[lane] = a.kernels.Fold(a.fold[lane*d:], a.queries(a.first+lane, 1), scale, mins)
	}
	start := (t.First + block*a.g.Format.Partition) * d // one stream per block
	for p := range l.Parts {
		lo, hi := l.Part(p, d)
		a.kernels.quantise(a.coding(roundQ), a.qa[p:], l.Parts, a.q[lo:], l.Width, a.fold[lo:], d, hi-lo, start+lo, 1)
	}
}

// valuesV2 adds, for every block and partition p of the channels and with
// p̃ = w ⊙ scale_p ≈ sp·p̃' + mp: sp·Σp̃'v' + mp·Σv' + Σ_t w·min.
func (a *Attender) valuesV2(t *piece) {
	width := a.g.Format.Partition
	for block := t.Lo / width; block*width < t.hi; block++ {
		for p := range a.g.Hack[quant.HalfV].Parts {
			a.partValues(t, block, p)
		}
	}
}

func (a *Attender) partValues(t *piece, block, part int) {
	l, d := &a.g.Hack[quant.HalfV], a.g.HeadDim
	width := a.g.Format.Partition
	first, params := block*width, part*a.g.Format.PageTokens
	clear(a.fold[:Lanes*width])
	a.base = [Lanes]float64{}
	for lane := range a.n {
		lo, hi := max(first, t.Lo), min(first+width, t.end[lane])
		if lo < hi { // scales and mins of tokens not seen may be anything
			a.base[lane] = a.kernels.Fold(a.fold[lane*width+lo-first:], a.row(lane, t.at+lo)[:hi-lo], t.v.scale[params+lo:], t.v.min[params+lo:])
		}
	}
	a.kernels.quantise(a.coding(roundP), a.a[:], 1, a.codes, width, a.fold, width, width, (t.First+first)*l.Parts+part, l.Parts)
	from, to := l.Part(part, d)
	a.multiplyValues(t, Span{from / 32, (to - from + 31) / 32}, block)
	for lane := range a.n {
		if t.end[lane] == t.Lo {
			continue
		}
		p := &a.a[lane]
		a.kernels.Affine(a.out[lane*d+from:lane*d+to], a.sums[lane*l.Width+from:], a.ones[:], a.ones[:], t.v.sums[block*d+from:],
			float64(p.scale), float64(p.min), a.base[lane])
	}
}
