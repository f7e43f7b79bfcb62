package ref

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// hqReader attends on hq codes. With s and z a token's scale and zero, k = 3 (2
// bits) or 15 (4 bits), and c = 4·msb + lsb for 4 bits:
//
//	value = s·code + z = s/2·(2·code - k) + centre,  centre = z + s·k/2
//
// so that everything of 2·code - k is an exact integer. The centre is 0 in
// symmetric formats.
type hqReader struct {
	q    [2]hqQueries // per segment
	s    []float32    // per vector: Q's scale
	k, v [2]hqTile
}

// hqQueries is the item's queries in one segment of K's channels.
type hqQueries struct {
	words []uint64 // [group of four vectors][width]
	sums  []int32  // [vector] Σ q'
	width int
}

// hqTile is one segment of one tile's half.
type hqTile struct {
	top, low      []uint8   // K: [token][width]; V: [width][token]; low nil where there is none
	scale, centre []float32 // [token]; scale is of the code's step
	set           uint64    // tokens whose second plane is read
	rows          []uint8   // low, compact, where only a set of tokens has it
}

// prepare quantises every query head row to int8: q ≈ s·q'.
func (r *hqReader) prepare(it *attendItem) {
	g, n := it.job.Geometry, it.hi-it.lo
	groups := (n + lanes - 1) / lanes
	l := &g.HQ[quant.HalfK]
	r.s = grow(r.s, n)
	for i, seg := range l.Segments[:l.NSegments] {
		q := &r.q[i]
		q.width = seg.Width
		q.words, q.sums = grow(q.words, groups*seg.Width), grow(q.sums, groups*lanes)
		clear(q.words)
		clear(q.sums)
	}
	for v := range n {
		row := it.query(v)
		var top float32
		for _, x := range row {
			top = max(top, float32(math.Abs(float64(x))))
		}
		var inv float32
		if top > tiny {
			inv = 127 / top
		}
		r.s[v] = top / 127
		for i, seg := range l.Segments[:l.NSegments] {
			r.q[i].put(v, row[seg.Lo:seg.Hi], inv)
		}
	}
}

// tiny is below what is worth a code: its reciprocal would overflow.
const tiny = 1e-30

func (q *hqQueries) put(v int, row []float32, inv float32) {
	words := q.words[v/lanes*q.width:]
	for c, x := range row {
		code := level(x*inv+128.5, 255) - 128 // to nearest; the offset keeps it positive
		put(&words[c], v%lanes, code)
		q.sums[v] += code
	}
}

// level is the whole part of x, at most top; what is no number is 0: codes of
// several vectors share words, and a broken query may not spoil its neighbours.
// Its own results are no numbers, by its scale.
func level(x float32, top int32) int32 {
	if !(x > 0) {
		return 0
	}
	return int32(min(x, float32(top)))
}

func (r *hqReader) loadKeys(it *attendItem, t *kernels.Tile) {
	load(it, t, quant.HalfK, &r.k)
}

func (r *hqReader) loadValues(it *attendItem, t *kernels.Tile) {
	load(it, t, quant.HalfV, &r.v)
}

func load(it *attendItem, t *kernels.Tile, half int, tiles *[2]hqTile) {
	g := it.job.Geometry
	l, page := &g.HQ[half], g.CodedHead(t.Coded, it.job.Head)
	set := ^uint64(0)
	if l.Mask >= 0 {
		set = binary.LittleEndian.Uint64(page[l.Mask:])
	}
	wide := set // tokens whose scale is that of a 4-bit code
	if l.Refined {
		wide = 0
	}
	if t.TopOnly {
		set = 0
	}
	for i, seg := range l.Segments[:l.NSegments] {
		tiles[i].load(page, &seg, half, set, l.LowRows, g.Format.PageTokens)
		tiles[i].scales(page, &seg, wide, g.Format.PageTokens)
		if l.Refined {
			tiles[i].refine()
		}
	}
}

// load spreads a segment's planes.
func (h *hqTile) load(page []byte, seg *quant.Segment, half int, set uint64, lowRows, tokens int) {
	h.set = 0
	h.top = unpack(h.top, half, page[seg.Top:], seg.Width, tokens)
	switch {
	case seg.Low < 0 || set == 0:
		h.low = h.low[:0]
	case lowRows == tokens:
		h.set = set
		h.low = unpack(h.low, half, page[seg.Low:], seg.Width, tokens)
	default:
		h.set = set
		h.rows = unpack(h.rows, half, page[seg.Low:], seg.Width, lowRows)
		h.low = grow(h.low, seg.Width*tokens)
		spread(h.low, h.rows, half, set, seg.Width, lowRows, tokens)
	}
}

// scales reads a segment's scales; those of wide are of 4-bit codes. Where only
// the top plane of such a code is read, that steps by four of the code's steps.
func (h *hqTile) scales(page []byte, seg *quant.Segment, wide uint64, tokens int) {
	h.scale, h.centre = grow(h.scale, tokens), grow(h.centre, tokens)
	if seg.Low < 0 {
		wide = 0
	}
	for t := range tokens {
		s, middle := tensor.GetF16(page[seg.Scale:], t), float32(1.5)
		if seg.Shared {
			s /= 4
		}
		h.scale[t], h.centre[t] = s, 0
		if wide>>t&1 == 1 {
			middle = 7.5
			if h.set>>t&1 == 0 {
				h.scale[t] = 4 * s
			}
		}
		if seg.Zero >= 0 {
			h.centre[t] = tensor.GetF16(page[seg.Zero:], t) + s*middle
		}
	}
}

// refine makes the scales of 2-bit codes a quarter where both planes of the 4-bit
// codes that refine them are read. The middle of the levels stays what it was.
func (h *hqTile) refine() {
	for rest := h.set; rest != 0; rest &= rest - 1 {
		h.scale[bits.TrailingZeros64(rest)] /= 4
	}
}

// twiceMiddle is k of token t: twice the middle of its levels.
func (h *hqTile) twiceMiddle(t int) int32 { return 3 + 12*int32(h.set>>t&1) }

func unpack(dst []uint8, half int, plane []byte, width, rows int) []uint8 {
	dst = grow(dst, width*rows)
	if half == quant.HalfK {
		unpackKeys(dst, plane, width, rows)
	} else {
		unpackValues(dst, plane, width, rows)
	}
	return dst
}

// spread puts a set's compact rows at their tokens, zeros elsewhere.
func spread(dst, rows []uint8, half int, set uint64, width, lowRows, tokens int) {
	clear(dst)
	for row := 0; set != 0 && row < lowRows; row++ {
		t := bits.TrailingZeros64(set)
		set &= set - 1
		if half == quant.HalfK {
			copy(dst[t*width:(t+1)*width], rows[row*width:])
			continue
		}
		for c := range width {
			dst[c*tokens+t] = rows[c*lowRows+row]
		}
	}
}

// scores computes s_q·(s/2·(2·Σq'·code - k·Σq') + centre·Σq') over the segments.
func (r *hqReader) scores(it *attendItem, b *block) {
	l := &it.job.Geometry.HQ[quant.HalfK]
	for i := range l.NSegments {
		q, k := &r.q[i], &r.k[i]
		group := operand{q.words[b.first/lanes*q.width:][:q.width], true}
		sums := [lanes]int32(q.sums[b.first : b.first+lanes])
		for t := b.lo &^ 3; t < b.hi; t += 4 {
			var dots [4][lanes]int32
			group.products(&dots, k.top, q.width, t, 0, q.width, 1)
			k.addLow(&dots, group, t)
			for j := range 4 {
				k.score(b, &dots[j], &sums, t+j, i == 0)
			}
		}
	}
	for lane := range min(lanes, it.hi-it.lo-b.first) {
		w, s := b.w[lane], r.s[b.first+lane]
		for t := b.lo; t < b.hi; t++ {
			w[t] *= s
		}
	}
}

// addLow makes the products of tokens t … t+3 with their top planes those with
// their codes: 4·msb + lsb where there is a second plane.
func (h *hqTile) addLow(dots *[4][lanes]int32, group operand, t int) {
	if h.set>>t&15 == 0 {
		return
	}
	for j := range 4 {
		if h.set>>(t+j)&1 == 1 {
			for l := range lanes {
				dots[j][l] *= 4
			}
		}
	}
	group.products(dots, h.low, len(group.words), t, 0, len(group.words), 1)
}

// score turns one token's products into its scores over Q's scale; the first
// segment sets them and the second adds.
func (h *hqTile) score(b *block, dots, sums *[lanes]int32, t int, first bool) {
	step, centre, k := h.scale[t]*0.5, h.centre[t], h.twiceMiddle(t)
	for l := range lanes {
		s := step*float32(2*dots[l]-k*sums[l]) + centre*float32(sums[l])
		if !first {
			s += b.w[l][t]
		}
		b.w[l][t] = s
	}
}

// values folds the tokens' steps into the weights, quantises those to u8 for
// each vector, and multiplies with the codes. A 4-bit token's top plane steps by
// 4·s and its second plane by s, a quarter: one set of u8 weights serves both.
// The centres need no codes: Σ w·centre is one number for all channels.
func (r *hqReader) values(it *attendItem, b *block) {
	g := it.job.Geometry
	l := &g.HQ[quant.HalfV]
	for i, seg := range l.Segments[:l.NSegments] {
		v := &r.v[i]
		var p hqWeights
		p.quantise(b, v, g.Format.PageTokens)
		p.multiply(b, v, &seg, g.Format.PageTokens)
	}
}

// hqWeights is four vectors' weights of one tile in u8.
type hqWeights struct {
	words     [64]uint64
	scale     [lanes]float32
	sums, low [lanes]int32 // Σ p', over all tokens and over those of the set
	centre    [lanes]float32
}

func (p *hqWeights) quantise(b *block, v *hqTile, tokens int) {
	var folded [64]float32
	for l := range lanes {
		if b.end[l] == b.lo {
			continue
		}
		w := b.w[l]
		var top float32
		for t := b.lo; t < b.end[l]; t++ {
			step := v.scale[t]
			if v.set>>t&1 == 1 {
				step *= 4
			}
			folded[t] = w[t] * step
			top = max(top, folded[t])
			p.centre[l] += w[t] * v.centre[t]
		}
		if top <= tiny {
			continue
		}
		p.scale[l] = top / 255
		inv := 255 / top
		for t := b.lo; t < b.end[l]; t++ {
			code := level(folded[t]*inv+0.5, 255)
			put(&p.words[t], l, code)
			p.sums[l] += code
			p.low[l] += code & -int32(v.set>>t&1)
		}
	}
}

// multiply sets out = scale·(Σp'(msb - 3/2) + Σp'(lsb - 3/2)/4) + centre.
func (p *hqWeights) multiply(b *block, v *hqTile, seg *quant.Segment, tokens int) {
	weights := operand{p.words[:tokens], false}
	lo, hi := b.lo&^3, min((b.hi+3)&^3, tokens)
	for c := 0; c < seg.Hi-seg.Lo; c += 4 {
		var top, low [4][lanes]int32
		weights.products(&top, v.top, tokens, c, lo, hi, 1)
		if v.set != 0 {
			weights.products(&low, v.low, tokens, c, lo, hi, 1)
		}
		for l := range lanes {
			step := p.scale[l] * 0.125
			for j := range 4 {
				exact := 4*(2*top[j][l]-3*p.sums[l]) + 2*low[j][l] - 3*p.low[l]
				b.out[l][seg.Lo+c+j] = step*float32(exact) + p.centre[l]
			}
		}
	}
}
