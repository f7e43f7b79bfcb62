package ref

import (
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// hackV2Reader attends on the codes of the artifact's layout: K's scale is per
// channel and folded into Q, V's is per token and folded into P; the mins enter
// as small exact products.
type hackV2Reader struct {
	words []uint64
	k, v  hackHalf
}

// prepare has nothing to do: a query is quantised anew for every block of K.
func (r *hackV2Reader) prepare(*attendItem) {}

func (r *hackV2Reader) loadKeys(it *attendItem, t *kernels.Tile)   { r.k.load(it, t, quant.HalfK) }
func (r *hackV2Reader) loadValues(it *attendItem, t *kernels.Tile) { r.v.load(it, t, quant.HalfV) }

func (r *hackV2Reader) scores(it *attendItem, b *block) {
	width := it.job.Geometry.Format.Partition
	for block := b.lo / width; block*width < b.hi; block++ {
		r.blockScores(it, b, max(b.lo, block*width), min(b.hi, (block+1)*width), block)
	}
}

// blockScores computes, for tokens [lo, hi) of one block of K and with
// q̃ = q ⊙ scale ≈ sq·q̃' + mq: Σ_p sq·Σq̃'k' + mq·Σk' and Σ_c q·min.
func (r *hackV2Reader) blockScores(it *attendItem, b *block, lo, hi, block int) {
	g := it.job.Geometry
	l, d := &g.Hack[quant.HalfK], g.HeadDim
	r.words = grow(r.words, l.Width)
	clear(r.words)
	scale, mins := r.k.scale[block*d:][:d], r.k.min[block*d:][:d]
	var q [maxParts][lanes]affine
	var base [lanes]float64
	for lane := range lanes {
		if b.end[lane] == b.lo {
			continue
		}
		base[lane] = r.fold(it, b, lane, scale, mins, block, &q)
	}
	x := operand{words: r.words}
	for t := lo &^ 3; t < hi; t += 4 {
		s := [4][lanes]float64{base, base, base, base}
		for p := range l.Parts {
			from, to := l.Part(p, d)
			dots := r.k.products(x, t, from, to)
			for j := range 4 {
				sum := float64(r.k.sums[(t+j)*l.Parts+p])
				for lane := range lanes {
					a := &q[p][lane]
					s[j][lane] += float64(a.scale)*float64(dots[j][lane]) + float64(a.min)*sum
				}
			}
		}
		for j := range 4 {
			for lane := range lanes {
				if t+j >= lo && t+j < hi {
					b.w[lane][t+j] = float32(s[j][lane])
				}
			}
		}
	}
}

// maxParts is the most partitions of a head: 1024 channels by 32.
const maxParts = 32

// fold quantises one query against one block's scales and returns Σ q·min.
func (r *hackV2Reader) fold(it *attendItem, b *block, lane int, scale, mins []float32, block int, q *[maxParts][lanes]affine) float64 {
	g := it.job.Geometry
	l, d := &g.Hack[quant.HalfK], g.HeadDim
	row := it.query(b.first + lane)
	var folded [1024]float32
	var base float64
	for c, x := range row {
		folded[c] = x * scale[c]
		base += float64(x) * float64(mins[c])
	}
	round := it.rounding(b.first+lane, quant.StreamQ)
	start := (b.tile + block*g.Format.Partition) * d // one stream per block
	for p := range l.Parts {
		lo, hi := l.Part(p, d)
		q[p][lane] = quantise8(r.words[lo:], lane, folded[lo:hi], round, start+lo, 1)
	}
	return base
}

// values computes, for every block and partition p of the channels and with
// p̃ = w ⊙ scale_p ≈ sp·p̃' + mp: sp·Σp̃'v' + mp·Σv' + Σ_t w·min.
func (r *hackV2Reader) values(it *attendItem, b *block) {
	width := it.job.Geometry.Format.Partition
	for l := range lanes {
		clear(b.out[l])
	}
	for block := b.lo / width; block*width < b.hi; block++ {
		for p := range it.job.Geometry.Hack[quant.HalfV].Parts {
			r.partValues(it, b, block, p)
		}
	}
}

func (r *hackV2Reader) partValues(it *attendItem, b *block, block, part int) {
	g := it.job.Geometry
	l, width := &g.Hack[quant.HalfV], g.Format.Partition
	first := block * width
	var w hackWeights
	w.quantise(it, b, first, width, r.v.scale, l.Parts, part)
	var base [lanes]float64
	for lane := range lanes {
		for t := first; t < first+width; t++ {
			if p := b.w[lane][t]; p != 0 { // an unseen token's min may be anything
				base[lane] += float64(p) * float64(r.v.min[t*l.Parts+part])
			}
		}
	}
	x := operand{words: w.words[:]}
	from, to := l.Part(part, g.HeadDim)
	for c := from; c < to; c += 4 {
		dots := r.v.products(x, c, first, first+width)
		for j := range 4 {
			sum := float64(r.v.sums[block*g.HeadDim+c+j])
			for lane := range lanes {
				a := &w.a[lane]
				b.out[lane][c+j] += float32(float64(a.scale)*float64(dots[j][lane]) + float64(a.min)*sum + base[lane])
			}
		}
	}
}
