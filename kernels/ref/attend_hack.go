package ref

import (
	"encoding/binary"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// affine is one partition of a vector in 8 bits: x ≈ scale·code + min.
type affine struct {
	scale, min float32
	sum        int32 // of the codes
}

// quantise8 codes x over its own range and adds the codes to a lane of words.
// element numbers x[0] in the vector's random stream.
func quantise8(words []uint64, lane int, x []float32, round quant.Rounding, element, stride int) affine {
	lo, hi := x[0], x[0]
	for _, v := range x[1:] {
		lo, hi = min(lo, v), max(hi, v)
	}
	a := affine{scale: (hi - lo) / 255, min: lo}
	if a.scale < tiny {
		a.scale = 1
	}
	inv := 1 / a.scale
	for i, v := range x {
		code := int32(round.Level((v-lo)*inv, 255, element+i*stride))
		put(&words[i], lane, code)
		a.sum += code
	}
	return a
}

// hackHalf is a tile's half in the hack layouts, spread for all vectors.
type hackHalf struct {
	planes     [4][]uint8 // K: [token][width]; V: [width][token]; most significant first
	n          int
	stride     int
	min, scale []float32 // as stored: [token][part] or [block][channel]
	sums       []float32 // K: [token][part]; V: [block][channel]
}

func (h *hackHalf) load(it *attendItem, t *kernels.Tile, half int) {
	g := it.job.Geometry
	l, page, tokens := &g.Hack[half], g.CodedHead(t.Coded, it.job.Head), g.Format.PageTokens
	h.n, h.stride = l.NPlanes, l.Width
	if half == quant.HalfV {
		h.stride = tokens
	}
	for i := range l.NPlanes {
		h.planes[i] = unpack(h.planes[i], half, page[l.Planes[i]:], l.Width, tokens)
	}
	params := l.Blocks * g.HeadDim
	if l.PerToken {
		params = tokens * l.Parts
	}
	widenHalf := tensor.F16ToF32
	if g.Format.Family == quant.FamilyHackV2 {
		widenHalf = tensor.BF16ToF32
	}
	h.min, h.scale = grow(h.min, params), grow(h.scale, params)
	for i := range params {
		h.min[i] = widenHalf(binary.LittleEndian.Uint16(page[l.Min+2*i:]))
		h.scale[i] = widenHalf(binary.LittleEndian.Uint16(page[l.Scale+2*i:]))
	}
	if half == quant.HalfK {
		h.loadSums(page, l, tokens*l.Parts)
	} else {
		h.loadSums(page, l, l.Blocks*g.HeadDim)
	}
	if l.Sums < 0 {
		h.sumCodes(g, l, half)
	}
}

// loadSums reads the stored sums of codes (SE).
func (h *hackHalf) loadSums(page []byte, l *quant.HackHalf, n int) {
	h.sums = grow(h.sums, n)
	if l.Sums < 0 {
		return
	}
	for i := range n {
		if l.SumBytes == 1 {
			h.sums[i] = float32(page[l.Sums+i])
		} else {
			h.sums[i] = float32(binary.LittleEndian.Uint16(page[l.Sums+2*i:]))
		}
	}
}

// sumCodes computes what SE would have stored.
func (h *hackHalf) sumCodes(g *quant.Geometry, l *quant.HackHalf, half int) {
	if half == quant.HalfK {
		for t := range g.Format.PageTokens {
			for p := range l.Parts {
				lo, hi := l.Part(p, g.HeadDim)
				h.sums[t*l.Parts+p] = h.sum(t*h.stride+lo, hi-lo)
			}
		}
		return
	}
	width := g.Format.Partition
	for b := range l.Blocks {
		for c := range g.HeadDim {
			h.sums[b*g.HeadDim+c] = h.sum(c*h.stride+b*width, width)
		}
	}
}

func (h *hackHalf) sum(at, n int) float32 {
	total := 0
	for _, plane := range h.planes[:h.n] {
		total *= 4
		for _, code := range plane[at : at+n] {
			total += int(code)
		}
	}
	return float32(total)
}

// products is the products of x with the codes of rows r … r+3, columns
// [lo, hi).
func (h *hackHalf) products(x operand, r, lo, hi int) (sums [4][lanes]int32) {
	weight := int32(1) << (2 * h.n)
	for _, plane := range h.planes[:h.n] {
		weight >>= 2
		x.products(&sums, plane, h.stride, r, lo, hi, weight)
	}
	return sums
}

// hackReader attends on the codes of the paper's layout: the product of two
// affine operands, corrected by the sums of their codes (docs/formats.md, "The
// homomorphic product"). The corrections are of the size of the result and
// partly cancel, hence float64.
type hackReader struct {
	words []uint64 // [group of four vectors][width]
	q     []affine // [vector][part]
	k, v  hackHalf
}

func (r *hackReader) prepare(it *attendItem) {
	g, n := it.job.Geometry, it.hi-it.lo
	l := &g.Hack[quant.HalfK]
	groups := (n + lanes - 1) / lanes
	r.words, r.q = grow(r.words, groups*l.Width), grow(r.q, groups*lanes*l.Parts)
	clear(r.words)
	clear(r.q)
	for v := range n {
		row, round := it.query(v), it.rounding(v, quant.StreamQ)
		for p := range l.Parts {
			lo, hi := l.Part(p, g.HeadDim)
			words := r.words[v/lanes*l.Width+lo:]
			r.q[v*l.Parts+p] = quantise8(words, v%lanes, row[lo:hi], round, lo, 1)
		}
	}
}

func (r *hackReader) loadKeys(it *attendItem, t *kernels.Tile)   { r.k.load(it, t, quant.HalfK) }
func (r *hackReader) loadValues(it *attendItem, t *kernels.Tile) { r.v.load(it, t, quant.HalfV) }

// scores computes Σ_p sq·sk·Σq'k' + mk·sq·Σq' + mq·sk·Σk' + n·mq·mk.
func (r *hackReader) scores(it *attendItem, b *block) {
	g := it.job.Geometry
	l := &g.Hack[quant.HalfK]
	x := operand{words: r.words[b.first/lanes*l.Width:][:l.Width]}
	for t := b.lo &^ 3; t < b.hi; t += 4 {
		var s [4][lanes]float64
		for p := range l.Parts {
			lo, hi := l.Part(p, g.HeadDim)
			dots := r.k.products(x, t, lo, hi)
			for j := range 4 {
				at := (t+j)*l.Parts + p
				sk, mk, sum := float64(r.k.scale[at]), float64(r.k.min[at]), float64(r.k.sums[at])
				for lane := range lanes {
					q := &r.q[(b.first+lane)*l.Parts+p]
					sq, mq := float64(q.scale), float64(q.min)
					s[j][lane] += sk*(sq*float64(dots[j][lane])+mq*sum) + mk*(sq*float64(q.sum)+float64(hi-lo)*mq)
				}
			}
		}
		for j := range 4 {
			for lane := range lanes {
				b.w[lane][t+j] = float32(s[j][lane])
			}
		}
	}
}

// values computes Σ_blocks sp·sv·Σp'v' + mv·sp·Σp' + mp·sv·Σv' + Π·mp·mv. A
// block is always quantised whole: tokens that a vector does not see weigh 0,
// which is then the least weight and has code 0.
func (r *hackReader) values(it *attendItem, b *block) {
	g := it.job.Geometry
	d, width := g.HeadDim, g.Format.Partition
	for l := range lanes {
		clear(b.out[l])
	}
	for block := b.lo / width; block*width < b.hi; block++ {
		var p hackWeights
		p.quantise(it, b, block*width, width, nil, 1, 0)
		x := operand{words: p.words[:]}
		for c := 0; c < d; c += 4 {
			dots := r.v.products(x, c, block*width, (block+1)*width)
			for j := range 4 {
				at := block*d + c + j
				sv, mv, sum := float64(r.v.scale[at]), float64(r.v.min[at]), float64(r.v.sums[at])
				for l := range lanes {
					sp, mp := float64(p.a[l].scale), float64(p.a[l].min)
					b.out[l][c+j] += float32(sv*(sp*float64(dots[j][l])+mp*sum) + mv*(sp*float64(p.a[l].sum)+float64(width)*mp))
				}
			}
		}
	}
}

// hackWeights is four vectors' weights of one block of tokens in 8 bits.
type hackWeights struct {
	words [128]uint64 // [token of the page]
	a     [lanes]affine
}

// quantise codes the weights of tokens [lo, lo+width), times scale[t·parts+part]
// where there are scales to fold in.
func (p *hackWeights) quantise(it *attendItem, b *block, lo, width int, scale []float32, parts, part int) {
	var folded [128]float32
	for l := range lanes {
		if b.end[l] == b.lo {
			continue
		}
		w := b.w[l][lo : lo+width]
		if scale != nil {
			for i := range w {
				folded[i] = w[i] * scale[(lo+i)*parts+part]
			}
			w = folded[:width]
		}
		round := it.rounding(b.first+l, quant.StreamP)
		p.a[l] = quantise8(p.words[lo:], l, w, round, (b.tile+lo)*parts+part, parts)
	}
}
