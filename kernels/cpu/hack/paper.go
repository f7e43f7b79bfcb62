package hack

import "github.com/terse-llm/terse/quant"

// affine is one partition of a vector in 8 bits: x ≈ scale·code + min.
type affine struct {
	scale, min float32
	sum        int32 // of the codes
}

// tiny is what a range is taken as 0 below.
const tiny = 1e-30

// quantise8 codes x over its own range; element and stride number its elements in
// the vector's random stream.
func quantise8(codes []byte, x []float32, round quant.Rounding, element, stride int) affine {
	lo, hi := x[0], x[0]
	for _, v := range x[1:] {
		lo, hi = min(lo, v), max(hi, v)
	}
	a := affine{scale: (hi - lo) / 255, min: lo}
	if a.scale < tiny {
		a.scale = 1
	}
	inv := 1 / a.scale
	codes = codes[:len(x)]
	for i, v := range x {
		code := round.Level((v-lo)*inv, 255, element+i*stride)
		codes[i] = code
		a.sum += int32(code)
	}
	return a
}

// quantiseQueries codes the item's n queries, once for all tiles.
func (a *Attender) quantiseQueries(n int) {
	l, d := &a.g.Hack[quant.HalfK], a.g.HeadDim
	for v := range n {
		row, round := a.queries(v, 1), a.rounding(v, quant.StreamQ)
		for p := range l.Parts {
			lo, hi := l.Part(p, d)
			a.qa[v*l.Parts+p] = quantise8(a.q[v*l.Width+lo:], row[lo:hi], round, lo, 1)
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
		narrow(a.w[lane*ld+span.Lo:], s)
	}
}

func narrow(dst []float32, src []float64) {
	dst = dst[:len(src)]
	for i, x := range src {
		dst[i] = float32(x)
	}
}

// quantiseWeights codes tokens [lo, lo+width) of the block's weights, times
// scale[t] where there are scales to fold in. Tokens that a vector does not see
// weigh 0, which is then the least weight and has code 0.
func (a *Attender) quantiseWeights(lo, width int, scale []float64, element, stride int) {
	ld := a.g.Format.PageTokens
	for l := range a.n {
		if a.end[l] == a.tile.Lo {
			continue
		}
		w := a.w[l*ld+lo:][:width]
		if scale != nil {
			fold := a.fold[:width]
			for i, x := range w {
				fold[i] = x * float32(scale[lo+i])
			}
			w = fold
		}
		a.a[l] = quantise8(a.codes[l*ld+lo:], w, a.rounding(a.first+l, quant.StreamP), element, stride)
	}
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
		a.quantiseWeights(block*width, width, nil, a.tile.First+block*width, 1)
		a.multiplyValues(Span{0, l.Width / 32}, block)
		for lane := range a.n {
			p, at := &a.a[lane], block*d
			sp, mp := float64(p.scale), float64(p.min)
			a.kernels.Affine(a.out[lane*d:][:d], a.sums[lane*l.Width:], a.v.scale[at:], a.v.min[at:], a.v.sums[at:],
				sp, mp, sp*float64(p.sum)+float64(width)*mp)
		}
	}
}
