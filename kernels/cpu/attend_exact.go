package cpu

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/exact"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// widenVectors is the number of vectors from which on a page is widened to
// float32 once for all of them: measured, below that converting in the kernels
// costs less. The results are the same bits either way.
const widenVectors = 32

// exactScratch is what exact tiles need.
type exactScratch struct {
	w    []float32 // [vector][softmax.Tokens] scores, then weights
	wide []byte    // one half of a page in float32
}

// exactTile adds exact pages of one block to the vectors' states. next is what
// comes afterwards.
func (s *attender) exactTile(it *attendItem, tiles, next []kernels.Tile) {
	g, n := it.job.Geometry, it.hi-it.lo
	most := 0
	for v := 0; v < n; v += softmax.Vectors {
		most = max(most, s.aim(it, tiles, v, min(softmax.Vectors, n-v)))
	}
	if most == 0 {
		return
	}
	s.exact.w = grow(s.exact.w, n*softmax.Tokens)
	q := it.job.Q[it.lo*g.HeadDim : it.hi*g.HeadDim]
	s.eachPage(it, tiles, next, most, quant.HalfK, func(at int, rows exact.Rows) {
		s.ops.exact.QK(s.exact.w[at:], softmax.Tokens, q, n, g.HeadDim, rows)
	})
	for v := 0; v < n; v += softmax.Vectors {
		s.exactWeights(it, tiles, v, min(softmax.Vectors, n-v))
	}
	s.eachPage(it, tiles, next, most, quant.HalfV, func(at int, rows exact.Rows) {
		s.ops.exact.PV(s.acc, n, g.HeadDim, s.exact.w[at:], softmax.Tokens, rows)
	})
}

// eachPage hands out one half of the tiles' rows that any vector sees, the first
// most ones, with the place of their scores.
func (s *attender) eachPage(it *attendItem, tiles, next []kernels.Tile, most, half int, f func(at int, rows exact.Rows)) {
	g, at := it.job.Geometry, 0
	for i := range tiles {
		n := min(tiles[i].Hi-tiles[i].Lo, most-at)
		if n <= 0 {
			return
		}
		rows := s.rows(it, &tiles[i], half, n)
		switch {
		case i+1 < len(tiles):
			rows.Next = s.rows(it, &tiles[i+1], half, tiles[i+1].Hi-tiles[i+1].Lo).Data
		case half == quant.HalfK:
			rows.Next = s.rows(it, &tiles[0], quant.HalfV, tiles[0].Hi-tiles[0].Lo).Data
		case len(next) > 0 && !next[0].KCoded:
			rows.Next = s.rows(it, &next[0], quant.HalfK, next[0].Hi-next[0].Lo).Data
		}
		if it.hi-it.lo >= widenVectors && rows.Type == tensor.F16 {
			s.exact.wide = grow(s.exact.wide, 4*g.HeadDim*n)
			rows = s.ops.exact.Widen(s.exact.wide, rows)
		}
		f(at, rows)
		at += n
	}
}

// rows is the first n rows of one half of a tile.
func (s *attender) rows(it *attendItem, t *kernels.Tile, half, n int) exact.Rows {
	g := it.job.Geometry
	data := g.ExactK(t.Exact, it.job.Head)
	if half == quant.HalfV {
		data = g.ExactV(t.Exact, it.job.Head)
	}
	size := g.ExactType().RowBytes(g.HeadDim)
	return exact.Rows{Data: data[t.Lo*size : (t.Lo+n)*size], Type: g.ExactType()}
}

// exactWeights turns the scores of vectors [v, v+nq) into weights, and takes
// their states to the new maxima.
func (s *attender) exactWeights(it *attendItem, tiles []kernels.Tile, v, nq int) {
	d := it.job.Geometry.HeadDim
	most := s.aim(it, tiles, v, nq)
	padded := (most + 15) &^ 15
	for i := range nq {
		s.tile.Factor[i] = it.job.Scale * softmax.Log2E
		copy(s.tile.S[i][:most], s.exact.w[(v+i)*softmax.Tokens:])
	}
	s.ops.softmax.FindMax(&s.tile, nq)
	alpha := s.raise(v, nq)
	s.ops.softmax.Weigh(&s.tile, nq, padded)
	s.count(v, nq, &alpha)
	for i := range nq {
		w := s.exact.w[(v+i)*softmax.Tokens:][:softmax.Tokens]
		clear(w[copy(w, s.tile.S[i][:padded]):])
		if a := alpha[i]; a != 1 {
			for c := range s.acc[(v+i)*d : (v+i+1)*d] {
				s.acc[(v+i)*d+c] *= a
			}
		}
	}
}
