package hack

import "github.com/terse-llm/terse/quant"

// scoresV2 computes, block by block of K and with q̃ = q ⊙ scale ≈ sq·q̃' + mq:
// Σ_p sq·Σq̃'k' + mq·Σk' and Σ_c q·min. K's scale is per channel, so that a query
// is quantised anew for every block.
func (a *Attender) scoresV2() {
	width := a.g.Format.Partition
	for block := a.tile.Lo / width; block*width < a.hi; block++ {
		a.blockScores(block)
	}
}

func (a *Attender) blockScores(block int) {
	l, d, ld := &a.g.Hack[quant.HalfK], a.g.HeadDim, a.g.Format.PageTokens
	width := a.g.Format.Partition
	scale, mins := a.k.scale[block*d:][:d], a.k.min[block*d:][:d]
	var base [lanes]float64
	for lane := range a.n {
		if a.end[lane] > a.tile.Lo {
			base[lane] = a.foldQuery(lane, scale, mins, block)
		}
	}
	a.multiplyKeys(a.q, Span{block * width, width})
	lo, hi := max(a.tile.Lo, block*width), min(a.hi, (block+1)*width)
	for lane := range a.n {
		s := a.score[lo:hi]
		for i := range s {
			s[i] = base[lane]
		}
		for p := range l.Parts {
			q, at := &a.qa[lane*l.Parts+p], p*ld+lo
			a.kernels.Affine(s, a.sums[(p*lanes+lane)*ld+lo:], a.ones[:], a.zeros[:], a.k.sums[at:], float64(q.scale), float64(q.min), 0)
		}
		a.kernels.Narrow(a.w[lane*ld+lo:], s)
	}
}

// foldQuery codes one query against one block's scales and returns Σ q·min.
func (a *Attender) foldQuery(lane int, scale, mins []float64, block int) float64 {
	l, d := &a.g.Hack[quant.HalfK], a.g.HeadDim
	base := a.kernels.Fold(a.fold, a.queries(a.first+lane, 1), scale, mins)
	round := a.rounding(a.first+lane, quant.StreamQ)
	start := (a.tile.First + block*a.g.Format.Partition) * d // one stream per block
	for p := range l.Parts {
		lo, hi := l.Part(p, d)
		a.qa[lane*l.Parts+p] = a.kernels.quantise(a.q[lane*l.Width+lo:], a.fold[lo:hi], round, a.g.Format.Stochastic, start+lo, 1)
	}
	return base
}

// valuesV2 computes, for every block and partition p of the channels and with
// p̃ = w ⊙ scale_p ≈ sp·p̃' + mp: sp·Σp̃'v' + mp·Σv' + Σ_t w·min.
func (a *Attender) valuesV2() {
	width := a.g.Format.Partition
	clear(a.out)
	for block := a.tile.Lo / width; block*width < a.hi; block++ {
		for p := range a.g.Hack[quant.HalfV].Parts {
			a.partValues(block, p)
		}
	}
}

func (a *Attender) partValues(block, part int) {
	l, d, ld := &a.g.Hack[quant.HalfV], a.g.HeadDim, a.g.Format.PageTokens
	width := a.g.Format.Partition
	first, params := block*width, part*ld
	var base [lanes]float64
	for lane := range a.n {
		lo, hi := max(first, a.tile.Lo), min(first+width, a.end[lane])
		if a.end[lane] == a.tile.Lo {
			continue
		}
		fold := a.fold[:width]
		clear(fold)
		if lo < hi { // scales and mins of tokens not seen may be anything
			base[lane] = a.kernels.Fold(fold[lo-first:], a.w[lane*ld+lo:lane*ld+hi], a.v.scale[params+lo:], a.v.min[params+lo:])
		}
		a.quantiseWeights(lane, first, fold, (a.tile.First+first)*l.Parts+part, l.Parts)
	}
	from, to := l.Part(part, d)
	a.multiplyValues(Span{from / 32, (to - from + 31) / 32}, block)
	for lane := range a.n {
		p := &a.a[lane]
		a.kernels.Affine(a.out[lane*d+from:lane*d+to], a.sums[lane*l.Width+from:], a.ones[:], a.ones[:], a.v.sums[block*d+from:],
			float64(p.scale), float64(p.min), base[lane])
	}
}
