package cpu

import (
	"unsafe"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/exact"
	"github.com/terse-llm/terse/kernels/cpu/fused"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/baseline"
	"github.com/terse-llm/terse/tensor"
)

// grouped reports whether a job's coded tiles are dequantised in registers.
func grouped(j *kernels.AttnJob) bool {
	f := j.Geometry.Format.Family
	return f == quant.FamilyGroup || f == quant.FamilyCacheGen && j.Geometry.Format.Delta == 0
}

// groupScratch is what tiles of int8, int4 and cachegen need.
type groupScratch struct {
	queries fused.Queries
	acc     []float32 // [vector][Width], where that is more than HeadDim
}

// groupTile adds pages of int8, int4 or cachegen of one block to the vectors' states:
// exactTile with the kernels that dequantise in registers. Such formats read every
// token as a code, so that tiles begin with their pages.
func (s *attender) groupTile(it *attendItem, tiles []kernels.Tile, next upcoming) {
	g, n := it.job.Geometry, it.hi-it.lo
	most := 0
	for v := 0; v < n; v += softmax.Vectors {
		most = max(most, s.aim(it, tiles, v, min(softmax.Vectors, n-v)))
	}
	if most == 0 {
		return
	}
	pages := (most + pageTokens - 1) / pageTokens
	s.exact.w = grow(s.exact.w, n*softmax.Tokens)
	for i := range pages {
		if tiles[i].Lo != 0 || !tiles[i].VCoded {
			panic("BUG: a page of " + g.Format.Name + " that is read in part or exactly")
		}
		s.ops.fused.QK(s.exact.w[i*pageTokens:], softmax.Tokens, &s.group.queries, &g.Group, s.groupPage(it, tiles, next, i, 0), s.groupAhead(it, tiles, next, i, pages, quant.HalfK))
	}
	for v := 0; v < n; v += softmax.Vectors {
		s.exactWeights(it, tiles, v, min(softmax.Vectors, n-v))
	}
	acc, width := s.acc, g.Group.Width
	if width != g.HeadDim {
		s.group.acc = grow(s.group.acc, n*width)
		clear(s.group.acc)
		acc = s.group.acc
	}
	for i := range pages {
		s.ops.fused.PV(acc, n, s.exact.w[i*pageTokens:], softmax.Tokens, &g.Group, s.groupPage(it, tiles, next, i, 0), s.groupAhead(it, tiles, next, i, pages, quant.HalfV))
	}
	if width != g.HeadDim {
		s.takeGroups(n, g.HeadDim, width)
	}
}

// groupPage is the i-th of the tiles and of those that follow, from byte off on; nil
// where that one is read exactly.
func (s *attender) groupPage(it *attendItem, tiles []kernels.Tile, next upcoming, i, off int) []byte {
	if i >= len(tiles) {
		if i -= len(tiles); i >= len(next.tiles) {
			return nil
		}
		it, tiles = next.it, next.tiles
	}
	if !tiles[i].KCoded {
		return nil
	}
	return it.job.Geometry.CodedHead(tiles[i].Coded, it.job.Head)[off:]
}

// groupAhead is what is read after one half of page i of the first pages tiles.
func (s *attender) groupAhead(it *attendItem, tiles []kernels.Tile, next upcoming, i, pages, half int) []byte {
	values := it.job.Geometry.Group.Halves[quant.HalfV].Scales
	switch {
	case half == quant.HalfV && i+1 == pages:
		return s.groupPage(it, tiles, next, pages, 0)
	case half == quant.HalfV:
		return s.groupPage(it, tiles, next, i+1, values)
	case i+1 == pages:
		return s.groupPage(it, tiles, next, 0, values)
	}
	return s.groupPage(it, tiles, next, i+1, 0)
}

// widenedRows is n rows of one half of a coded tile of kivi or kvquant, from token from
// of the page on, in float32. K of kvquant is turned from where its page begins on.
func (s *attender) widenedRows(it *attendItem, t *kernels.Tile, half, from, n int, ahead []byte) exact.Rows {
	g, e := it.job.Geometry, &s.exact
	e.floats = grow(e.floats, n*g.HeadDim)
	page := baseline.Page{Coded: g.CodedHead(t.Coded, it.job.Head), Layer: it.job.Layer, Head: it.job.Head}
	if g.Format.Delta > 0 { // an option, to compare sizes and quality
		e.widen.Rows(e.floats, g, page, half, from, from+n)
		return exact.Rows{Data: bytesOf(e.floats), Type: tensor.F32}
	}
	s.ops.widen.Rows(&e.widen, e.floats, g, page, half, from, from+n, ahead)
	if half == quant.HalfK && turns(it.job) {
		s.ops.widen.Turn(e.floats, g, from, n)
	}
	return exact.Rows{Data: bytesOf(e.floats), Type: tensor.F32}
}

// fusedScores sets the scores of n tokens of a coded tile of kivi, from place at on.
func (s *attender) fusedScores(it *attendItem, t *kernels.Tile, at, n int, ahead []byte) {
	g, e := it.job.Geometry, &s.exact
	vectors, q := it.hi-it.lo, it.job.Q[it.lo*g.HeadDim:it.hi*g.HeadDim]
	page := g.CodedHead(t.Coded, it.job.Head)
	if t.Lo == 0 { // what is beyond n tokens is overwritten, or not looked at
		e.kivi.QK(s.ops.fused, e.w[at:], softmax.Tokens, q, vectors, g, page, ahead)
		return
	}
	e.part = grow(e.part, vectors*pageTokens)
	e.kivi.QK(s.ops.fused, e.part, pageTokens, q, vectors, g, page, ahead)
	for v := range vectors {
		copy(e.w[v*softmax.Tokens+at:][:n], e.part[v*pageTokens+t.Lo:])
	}
}

// fusedValues adds n weighted tokens of a coded tile of kivi, whose weights are from
// place at on.
func (s *attender) fusedValues(it *attendItem, t *kernels.Tile, at, n int, ahead []byte) {
	g, e := it.job.Geometry, &s.exact
	vectors, width := it.hi-it.lo, g.Hack[quant.HalfV].Width
	w, ld := e.w[at:], softmax.Tokens
	if n < pageTokens {
		e.part = grow(e.part, vectors*pageTokens)
		clear(e.part)
		for v := range vectors {
			copy(e.part[v*pageTokens+t.Lo:][:n], e.w[v*softmax.Tokens+at:])
		}
		w, ld = e.part, pageTokens
	}
	acc := s.acc
	if width != g.HeadDim {
		s.group.acc = grow(s.group.acc, vectors*width)
		clear(s.group.acc)
		acc = s.group.acc
	}
	e.kivi.PV(s.ops.fused, acc, vectors, w, ld, g, g.CodedHead(t.Coded, it.job.Head), ahead)
	if width != g.HeadDim {
		s.takeGroups(vectors, g.HeadDim, width)
	}
}

// takeGroups adds the outputs of heads padded to whole groups to those of n vectors.
func (s *attender) takeGroups(n, d, width int) {
	for v := range n {
		for c := range d {
			s.acc[v*d+c] += s.group.acc[v*width+c]
		}
	}
}

// codedHalf is the bytes of one half of a coded tile's page.
func codedHalf(it *attendItem, t *kernels.Tile, half int) []byte {
	g := it.job.Geometry
	page, values := g.CodedHead(t.Coded, it.job.Head), g.Hack[quant.HalfV].Min
	switch {
	case turns(it.job):
		values = g.NUQ[quant.HalfV].Scale
	case g.Format.Delta > 0:
		values = g.Group.Halves[quant.HalfV].Scales
	}
	if half == quant.HalfK {
		return page[:values]
	}
	return page[values:]
}

// bytesOf is x's memory.
func bytesOf(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// widens reports whether a job's coded tiles are read as exact ones are, widened (or in
// the kernels).
func widens(j *kernels.AttnJob) bool {
	f := j.Geometry.Format
	return f.Family == quant.FamilyKIVI || f.Delta > 0 || turns(j)
}

// turns reports whether a job's coded K is as it was before RoPE.
func turns(j *kernels.AttnJob) bool { return j.Geometry.Format.Family == quant.FamilyKVQuant }

// turnedBack is the item's queries turned back by the angles of the position first:
// their products with keys that are turned from there on are those with keys that
// are turned from 0 on.
func (s *attender) turnedBack(it *attendItem, first int) []float32 {
	g, e := it.job.Geometry, &s.exact
	n := g.Tables.Pairs()
	e.turned, e.angles = grow(e.turned, (it.hi-it.lo)*g.HeadDim), grow(e.angles, 2*n)
	copy(e.turned, it.job.Q[it.lo*g.HeadDim:it.hi*g.HeadDim])
	cos, sin := e.angles[:n], e.angles[n:]
	g.Tables.Base(cos, sin, first)
	for i, x := range sin {
		sin[i] = -x
	}
	s.ops.vec.RoPE(e.turned, it.hi-it.lo, g.HeadDim, cos, sin, g.Tables.Interleaved())
	return e.turned
}
