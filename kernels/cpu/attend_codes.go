package cpu

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/codes"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/quant"
)

// pageTokens is the tokens of a page of the hq formats.
const pageTokens = 64

// codedQueries is an item's query vectors in int8, per segment of K's channels.
type codedQueries struct {
	codes [2][]int8    // [vector][width]
	sums  [2][]float32 // [vector] Σ q'
	scale []float32    // [vector] bits of a score per unit of q'·code
}

func (q *codedQueries) prepare(k *codes.Kernels, it *attendItem) {
	g, n := it.job.Geometry, it.hi-it.lo
	l := &g.HQ[quant.HalfK]
	q.scale = grow(q.scale, n)
	for i, seg := range l.Segments[:l.NSegments] {
		q.codes[i], q.sums[i] = grow(q.codes[i], n*seg.Width), grow(q.sums[i], n)
	}
	for v := range n {
		x := it.job.Q[(it.lo+v)*g.HeadDim : (it.lo+v+1)*g.HeadDim]
		top := k.MaxAbs(x)
		q.scale[v] = top / 127 * it.job.Scale * softmax.Log2E
		for i, seg := range l.Segments[:l.NSegments] {
			q.sums[i][v] = float32(k.Quantise(q.codes[i][v*seg.Width:(v+1)*seg.Width], x[seg.Lo:seg.Hi], top))
		}
	}
}

// codedScales is what the tokens of a tile's pages have beside their codes, in
// one half, per segment.
type codedScales struct {
	step, bias [2][softmax.Tokens]float32
	set        [4]uint64 // per page: the tokens whose second plane is read
}

// load reads a tile's pages; topOnly says of each whether only the top plane of
// codes with two may be read.
func (c *codedScales) load(k *codes.Kernels, g *quant.Geometry, half int, pages [][]byte, topOnly []bool) {
	c.set = [4]uint64{}
	for i, page := range pages {
		c.loadPage(k, &g.HQ[half], half, i, page, topOnly[i])
	}
}

func (c *codedScales) loadPage(k *codes.Kernels, l *quant.HQHalf, half, i int, page []byte, topOnly bool) {
	var wide uint64 // tokens whose scale is that of a 4-bit code
	switch {
	case l.Mask >= 0:
		wide = binary.LittleEndian.Uint64(page[l.Mask:])
	case l.LowRows > 0:
		wide = ^uint64(0)
	}
	if !topOnly {
		c.set[i] = wide
	}
	if l.Refined {
		wide = 0
	}
	for s, seg := range l.Segments[:l.NSegments] {
		set := wide
		if seg.Low < 0 {
			set = 0
		}
		var zero []byte
		if seg.Zero >= 0 {
			zero = page[seg.Zero:]
		}
		step, bias := c.step[s][i*pageTokens:(i+1)*pageTokens], c.bias[s][i*pageTokens:(i+1)*pageTokens]
		if half == quant.HalfK {
			k.KeyScales(step, bias, page[seg.Scale:], zero, set, seg.Shared)
			dropSecond(step, bias, set&^c.set[i])
			if l.Refined {
				addSecond(step, bias, c.set[i])
			}
		} else {
			k.ValueScales(step, bias, page[seg.Scale:], zero, set)
		}
	}
}

// dropSecond makes the scales of some tokens' 4-bit codes those of the top planes
// alone. (A value's step is that of the top plane already, and the middle of the
// levels is the same.)
func dropSecond(step, bias []float32, set uint64) {
	for ; set != 0; set &= set - 1 {
		t := bits.TrailingZeros64(set)
		s := step[t]
		step[t], bias[t] = 4*s, bias[t]+1.5*s
	}
}

// addSecond makes the scales of some tokens' 2-bit codes those of the 4-bit codes that
// refine them.
func addSecond(step, bias []float32, set uint64) {
	for ; set != 0; set &= set - 1 {
		t := bits.TrailingZeros64(set)
		s := step[t] / 4
		step[t], bias[t] = s, bias[t]-1.5*s
	}
}

// full reports whether the second plane of all tokens of the first n pages is read.
func (c *codedScales) full(n int) bool {
	for _, set := range c.set[:n] {
		if set != ^uint64(0) {
			return false
		}
	}
	return true
}

// codedSums is the integers of up to four vectors at one tile.
type codedSums struct {
	dots     [softmax.Vectors * softmax.Tokens]int32 // [vector][token]
	lowDots  [softmax.Vectors * softmax.Tokens]int32 // [vector][row of the second plane]
	lowP     [softmax.Vectors * softmax.Tokens]uint8 // [vector][row of the second plane]
	top, low []int32                                 // [vector][width]
	scores   [softmax.Vectors][softmax.Tokens]float32
	merge    codes.Merge
}

// codedTile adds coded pages of one block to the vectors' states. next is what
// comes afterwards, and is fetched meanwhile.
func (s *attender) codedTile(it *attendItem, tiles []kernels.Tile, next upcoming) {
	g := it.job.Geometry
	s.takePages(it, tiles)
	s.expect(next, len(tiles))
	n, first := it.hi-it.lo, true
	for v := 0; v < n; {
		nq := groupOf(n - v)
		if s.aim(it, tiles, v, nq) > 0 {
			s.passes.start(first)
			s.codedScores(it, v, nq, first)
			if first {
				s.v.load(s.ops.codes, g, quant.HalfV, s.pages, s.topOnly[:])
			}
			alpha := s.raise(v, nq)
			s.codedValues(it, v, nq, &alpha)
			s.count(v, nq, &alpha)
			first = false
		}
		v += nq
	}
}

// takePages takes in the pages of coded tiles of one block.
func (s *attender) takePages(it *attendItem, tiles []kernels.Tile) {
	s.pages = s.pages[:0]
	for i := range tiles {
		t := &tiles[i]
		if t.Lo != 0 || t.Hi != pageTokens && i != len(tiles)-1 {
			panic("BUG: a coded page that is read in part")
		}
		s.pages = append(s.pages, it.job.Geometry.CodedHead(t.Coded, it.job.Head))
		s.topOnly[i] = t.TopOnly
	}
}

// codedScores fills the softmax tile with the scores of vectors [v, v+nq).
// The tile's first vectors load what the tokens have beside their codes: after the
// first pass, which has waited for the pages already.
func (s *attender) codedScores(it *attendItem, v, nq int, first bool) {
	g, k, c := it.job.Geometry, s.ops.codes, &s.ints
	l := &g.HQ[quant.HalfK]
	copy(s.tile.Factor[:nq], s.q.scale[v:])
	for i := range l.NSegments {
		seg := &l.Segments[i]
		q := s.q.codes[i][v*seg.Width:]
		k.PageProducts(c.dots[:], q, nq, codes.Planes{Pages: s.pages, Off: seg.Top, Width: seg.Width, Rows: pageTokens}, false, s.fetch())
		if first && i == 0 {
			s.k.load(s.ops.codes, g, quant.HalfK, s.pages, s.topOnly[:])
		}
		switch {
		case seg.Low < 0:
		case l.LowRows == pageTokens && s.k.full(len(s.pages)):
			k.PageProducts(c.dots[:], q, nq, codes.Planes{Pages: s.pages, Off: seg.Low, Width: seg.Width, Rows: pageTokens}, true, s.fetch())
		default:
			s.lowProducts(l, seg, q, nq)
		}
		copy(s.tile.QSum[:nq], s.q.sums[i][v:])
		s.ops.softmax.Scores(&s.tile, c.dots[:], s.k.step[i][:], s.k.bias[i][:], nq, i > 0)
	}
}

// lowProducts adds the products with the second planes, page by page: of all
// tokens, of the rows that there are, or of none.
func (s *attender) lowProducts(l *quant.HQHalf, seg *quant.Segment, q []int8, nq int) {
	k, c := s.ops.codes, &s.ints
	if l.LowRows == pageTokens {
		s.fetch() // the pass that would have fetched
	}
	for p, page := range s.pages {
		set, dots := s.k.set[p], c.dots[p*pageTokens:]
		switch {
		case set == 0:
		case l.LowRows == pageTokens:
			k.Products(dots, q, page[seg.Low:], nq, seg.Width, pageTokens, true)
		default:
			k.Products(c.lowDots[:], q, page[seg.Low:], nq, seg.Width, min((bits.OnesCount64(set)+7)&^7, l.LowRows), false)
			c.spread(dots, set, nq)
		}
	}
}

// spread makes the products of the tokens of a set those with their 4-bit codes.
func (c *codedSums) spread(dots []int32, set uint64, nq int) {
	for row := 0; set != 0; row++ {
		t := bits.TrailingZeros64(set)
		set &= set - 1
		for v := range nq {
			d := &dots[v*softmax.Tokens+t]
			*d = 4**d + c.lowDots[v*softmax.Tokens+row]
		}
	}
}

// codedValues turns scores into weights and adds the weighted values.
func (s *attender) codedValues(it *attendItem, v, nq int, alpha *[softmax.Vectors]float32) {
	g := it.job.Geometry
	l, d, n := &g.HQ[quant.HalfV], g.HeadDim, len(s.pages)*pageTokens
	if l.NSegments > 1 { // weighing is in place, and each segment has its own steps
		copy(s.ints.scores[:nq], s.tile.S[:nq])
	}
	for i := range l.NSegments {
		if i > 0 {
			copy(s.tile.S[:nq], s.ints.scores[:nq])
		}
		seg := &l.Segments[i]
		centre := s.v.bias[i][:]
		if seg.Zero < 0 {
			centre = nil
		}
		s.ops.softmax.WeighBy(&s.tile, s.v.step[i][:], centre, nq, n)
		s.ops.softmax.Quantise(&s.tile, nq, n)
		m := &s.ints.merge
		*m = codes.Merge{Alpha: *alpha, Centre: s.tile.Centre, Sum: s.tile.PSum}
		for j := range nq {
			m.Scale[j] = softmax.Step(s.tile.Largest[j])
		}
		low := s.weightedSums(l, seg, nq, m)
		s.ops.codes.Merge(m, s.acc[v*d+seg.Lo:], s.ints.top, low, nq, d, seg.Width, seg.Hi-seg.Lo)
	}
}

// weightedSums multiplies the weights with the planes of a segment of V, and
// returns the sums of the second one, nil where there is none.
func (s *attender) weightedSums(l *quant.HQHalf, seg *quant.Segment, nq int, m *codes.Merge) (low []int32) {
	k, c := s.ops.codes, &s.ints
	c.top = grow(c.top, nq*seg.Width)
	weights := unsafe.Slice(&s.tile.P[0][0], softmax.Vectors*softmax.Tokens)
	k.PageSums(c.top, weights, nq, codes.Planes{Pages: s.pages, Off: seg.Top, Width: seg.Width, Rows: pageTokens}, s.fetch())
	if seg.Low < 0 {
		return nil
	}
	c.low = grow(c.low, nq*seg.Width)
	if l.LowRows == pageTokens && s.v.full(len(s.pages)) {
		m.LowSum = m.Sum
		k.PageSums(c.low, weights, nq, codes.Planes{Pages: s.pages, Off: seg.Low, Width: seg.Width, Rows: pageTokens}, s.fetch())
		return c.low
	}
	if l.LowRows == pageTokens {
		s.fetch() // as in lowProducts
	}
	if s.v.set == [4]uint64{} {
		return nil
	}
	clear(c.low)
	for p, page := range s.pages {
		switch set := s.v.set[p]; {
		case set == 0:
		case l.LowRows == pageTokens:
			k.WeightedSums(c.low, weights[p*pageTokens:], page[seg.Low:], nq, seg.Width, pageTokens/4)
			for v := range nq {
				m.LowSum[v] += sumOf(weights[v*softmax.Tokens+p*pageTokens:][:pageTokens])
			}
		default:
			rows := min((bits.OnesCount64(set)+3)&^3, l.LowRows)
			c.gather(weights[p*pageTokens:], set, nq, rows, m)
			k.WeightedSums(c.low, c.lowP[:], page[seg.Low:], nq, seg.Width, rows/4)
		}
	}
	return c.low
}

func sumOf(weights []uint8) (sum int32) {
	for _, w := range weights {
		sum += int32(w)
	}
	return sum
}

// gather lays the weights of a set's tokens side by side, as their rows of the
// second plane lie.
func (c *codedSums) gather(weights []uint8, set uint64, nq, rows int, m *codes.Merge) {
	for v := range nq {
		clear(c.lowP[v*softmax.Tokens:][:rows])
	}
	for row := 0; set != 0 && row < rows; row++ {
		t := bits.TrailingZeros64(set)
		set &= set - 1
		for v := range nq {
			p := weights[v*softmax.Tokens+t]
			c.lowP[v*softmax.Tokens+row] = p
			m.LowSum[v] += int32(p)
		}
	}
}
