package cpu

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// Weigh adds to each job's Weights what its queries give to every token. The
// scores are computed twice, for the softmax sums and for the weights: to keep them
// would take as long and much memory. Floor: twice Attend's products with K.
func (o *Ops) Weigh(jobs []kernels.AttnJob) {
	o.pool.do(len(jobs), &weighing{o, jobs})
}

// weighing is one Weigh; a job is one piece, so that its sums have one order.
type weighing struct {
	ops  *Ops
	jobs []kernels.AttnJob
}

// Do weighs the tokens of job i.
func (w *weighing) Do(i int) {
	j := &w.jobs[i]
	if f := j.Geometry.Format.Family; f != quant.FamilyHQ && f != quant.FamilyF16 {
		panic("BUG: tokens of format " + j.Geometry.Format.Name + " to be weighed")
	}
	it := &attendItem{job: j, hi: len(j.Limit) * j.Group, to: len(j.Tiles), split: -1}
	s := w.ops.scratch.Get().(*attender)
	s.ops = w.ops
	s.start(it)
	s.reset(&s.state, it.hi, j.Geometry.HeadDim)
	s.eachScores(it, func(_ []kernels.Tile, v, nq, n int) {
		alpha := s.raise(v, nq)
		s.ops.softmax.Weigh(&s.tile, nq, n)
		s.count(v, nq, &alpha)
	})
	s.eachScores(it, func(tiles []kernels.Tile, v, nq, n int) {
		copy(s.tile.Top[:nq], s.top[v:])
		s.ops.softmax.Weigh(&s.tile, nq, n)
		for i := range nq {
			s.addWeights(j.Weights, tiles, i, 1/s.sum[v+i])
		}
	})
	w.ops.scratch.Put(s)
}

// eachScores fills the softmax tile with the scores of each few vectors at each
// block's tiles, of which n tokens are to be weighed.
func (s *attender) eachScores(it *attendItem, f func(tiles []kernels.Tile, v, nq, n int)) {
	for from := it.from; from < it.to; {
		tiles := it.job.Tiles[from:it.to]
		tiles = tiles[:tileEnd(it.job, tiles)]
		coded := tiles[0].KCoded
		if coded {
			s.takePages(it, tiles)
			s.passes.start(false)
		} else {
			s.exactProducts(it, tiles, upcoming{})
		}
		first := true
		for v := 0; v < it.hi; {
			nq := groupOf(it.hi - v)
			switch seen := s.aim(it, tiles, v, nq) > 0; {
			case seen && coded:
				s.codedScores(it, v, nq, first)
				first = false
				f(tiles, v, nq, len(s.pages)*pageTokens)
			case seen:
				f(tiles, v, nq, s.exactScores(it, tiles, v, nq))
			}
			v += nq
		}
		from += len(tiles)
	}
}

// addWeights adds vector i's weights of the tiles' tokens, times factor.
func (s *attender) addWeights(to []float32, tiles []kernels.Tile, i int, factor float32) {
	at := 0
	for t := range tiles {
		n := min(tiles[t].Hi-tiles[t].Lo, s.tile.End[i]-at)
		if n <= 0 {
			return
		}
		first := tiles[t].First + tiles[t].Lo
		dst := to[first : first+n]
		for k, w := range s.tile.S[i][at : at+n] {
			dst[k] += w * factor
		}
		at += n
	}
}
