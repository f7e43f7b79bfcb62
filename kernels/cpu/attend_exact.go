package cpu

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/exact"
	"github.com/terse-llm/terse/kernels/cpu/fused"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
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

	floats []float32 // the same of a coded page; what Map sums in
	widen  baseline.Scratch
	kivi   fused.KIVI
	part   []float32 // scores or weights of pages that are read in part, [vector][page token]
	turned []float32 // queries, turned back to where a page begins
	angles []float32 // of it, cosines and then sines
}

// exactTile adds exact pages of one block to the vectors' states, or coded ones of
// kivi and kvquant. next is what comes afterwards.
func (s *attender) exactTile(it *attendItem, tiles []kernels.Tile, next upcoming) {
	g, n := it.job.Geometry, it.hi-it.lo
	most := s.exactProducts(it, tiles, next)
	if most == 0 {
		return
	}
	for v := 0; v < n; v += softmax.Vectors {
		s.exactWeights(it, tiles, v, min(softmax.Vectors, n-v))
	}
	s.eachPage(it, tiles, next, most, quant.HalfV, func(t *kernels.Tile, at, tokens int, rows exact.Rows) {
		if rows.Data == nil {
			s.fusedValues(it, t, at, tokens, rows.Next)
			return
		}
		s.ops.exact.PV(s.acc, n, g.HeadDim, s.exact.w[at:], softmax.Tokens, rows)
	})
}

// exactProducts multiplies the queries with the tiles' keys, and returns how many
// of their tokens any vector sees.
func (s *attender) exactProducts(it *attendItem, tiles []kernels.Tile, next upcoming) (most int) {
	g, n := it.job.Geometry, it.hi-it.lo
	for v := 0; v < n; v += softmax.Vectors {
		most = max(most, s.aim(it, tiles, v, min(softmax.Vectors, n-v)))
	}
	if most == 0 {
		return 0
	}
	s.exact.w = grow(s.exact.w, n*softmax.Tokens)
	q := it.job.Q[it.lo*g.HeadDim : it.hi*g.HeadDim]
	turned, page := q, -1 // of which page
	s.eachPage(it, tiles, next, most, quant.HalfK, func(t *kernels.Tile, at, tokens int, rows exact.Rows) {
		if rows.Data == nil {
			s.fusedScores(it, t, at, tokens, rows.Next)
			return
		}
		x := q
		if t.KCoded && turns(it.job) {
			if page != t.First {
				turned, page = s.turnedBack(it, t.First), t.First
			}
			x = turned
		}
		s.ops.exact.QK(s.exact.w[at:], softmax.Tokens, x, n, g.HeadDim, rows)
	})
	return most
}

// eachPage hands out one half of the tiles' rows that any vector sees, the first
// most ones, with the place of their scores; coded ones that are multiplied with as they
// are have no rows, only what comes next.
func (s *attender) eachPage(it *attendItem, tiles []kernels.Tile, next upcoming, most, half int, f func(t *kernels.Tile, at, tokens int, rows exact.Rows)) {
	g, at := it.job.Geometry, 0
	for i := range tiles {
		n := min(tiles[i].Hi-tiles[i].Lo, most-at)
		if n <= 0 {
			return
		}
		var ahead []byte
		switch {
		case i+1 < len(tiles):
			ahead = s.exactAhead(it, &tiles[i+1], half)
		case half == quant.HalfK:
			ahead = s.exactAhead(it, &tiles[0], quant.HalfV)
		case len(next.tiles) > 0:
			ahead = s.exactAhead(next.it, &next.tiles[0], quant.HalfK)
		}
		if coded(&tiles[i], half) && !s.ops.fused.HasKIVI(g) {
			s.eachWidened(it, &tiles[i], half, n, ahead, func(part, tokens int, rows exact.Rows) {
				f(&tiles[i], at+part, tokens, rows)
			})
			at += n
			continue
		}
		rows := s.rows(it, &tiles[i], half, n, ahead)
		if it.hi-it.lo >= widenVectors && rows.Type == tensor.F16 {
			s.exact.wide = grow(s.exact.wide, 4*g.HeadDim*n)
			rows = s.ops.exact.Widen(s.exact.wide, rows)
		}
		f(&tiles[i], at, n, rows)
		at += n
	}
}

// widenedBytes is how much is widened before it is used: half of a level 1 cache.
const widenedBytes = 16 << 10

// eachWidened hands out the first n rows of one half of a coded tile a few at a time,
// with the place of the first of them in the tile.
func (s *attender) eachWidened(it *attendItem, t *kernels.Tile, half, n int, ahead []byte, f func(at, tokens int, rows exact.Rows)) {
	step := max(8, widenedBytes/(4*it.job.Geometry.HeadDim)&^7)
	for from := t.Lo; from < t.Lo+n; {
		next := min((from/step+1)*step, t.Lo+n) // cut where the page is, whatever the tile
		f(from-t.Lo, next-from, s.widenedRows(it, t, half, from, next-from, ahead))
		from = next
	}
}

// exactAhead is one half of a tile that is read later, nil where it is coded and
// will not be widened.
func (s *attender) exactAhead(it *attendItem, t *kernels.Tile, half int) []byte {
	switch {
	case !coded(t, half):
		return s.rows(it, t, half, t.Hi-t.Lo, nil).Data
	case widens(it.job):
		return codedHalf(it, t, half)
	}
	return nil
}

// coded reports whether one half of a tile is read as codes.
func coded(t *kernels.Tile, half int) bool {
	if half == quant.HalfK {
		return t.KCoded
	}
	return t.VCoded
}

// rows is the first n rows of one half of a tile; ahead is what is read afterwards.
func (s *attender) rows(it *attendItem, t *kernels.Tile, half, n int, ahead []byte) exact.Rows {
	if coded(t, half) {
		return exact.Rows{Next: ahead} // kivi's kernels read the page
	}
	g := it.job.Geometry
	data := g.ExactK(t.Exact, it.job.Head)
	if half == quant.HalfV {
		data = g.ExactV(t.Exact, it.job.Head)
	}
	size := g.ExactType().RowBytes(g.HeadDim)
	return exact.Rows{Data: data[t.Lo*size : (t.Lo+n)*size], Type: g.ExactType(), Next: ahead}
}

// exactScores fills the softmax tile with the products of vectors [v, v+nq), and
// returns how many of its tokens are to be weighed.
func (s *attender) exactScores(it *attendItem, tiles []kernels.Tile, v, nq int) (padded int) {
	most := s.aim(it, tiles, v, nq)
	for i := range nq {
		s.tile.Factor[i] = it.job.Scale * softmax.Log2E
		copy(s.tile.S[i][:most], s.exact.w[(v+i)*softmax.Tokens:])
	}
	s.ops.softmax.FindMax(&s.tile, nq)
	return (most + 15) &^ 15
}

// exactWeights turns the scores of vectors [v, v+nq) into weights, and takes
// their states to the new maxima.
func (s *attender) exactWeights(it *attendItem, tiles []kernels.Tile, v, nq int) {
	d := it.job.Geometry.HeadDim
	padded := s.exactScores(it, tiles, v, nq)
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
