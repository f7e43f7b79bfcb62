package kerneltest

import (
	"math"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
)

// TileTruth is what one tile's tokens stand for, [page token][channel].
type TileTruth struct {
	*kernels.Tile
	K, V  []float64
	VBits []int // of the codes of V, nil where exact
	Codes []int // of K, nil where exact
}

// Truth reads the tiles of a job of a cache of one layer.
func Truth(j *kernels.AttnJob) []TileTruth {
	g := j.Geometry
	read := func(t *kernels.Tile, half int, coded bool) []float64 {
		switch {
		case coded && g.Format.Family == quant.FamilyKVQuant:
			fit := g.Tables.Fit()
			rows := dequant.NUQ(g, fit, t.Coded, j.Layer, j.Head, half)
			if half == quant.HalfK {
				rows = dequant.Turned(rows, g.HeadDim, fit, t.First)
			}
			return rows
		case coded && t.TopOnly:
			return dequant.TopPlane(g, t.Coded, j.Head, half)
		case coded:
			return dequant.Half(g, t.Coded, j.Head, half)
		}
		return dequant.Exact(g, t.Exact, j.Head, half)
	}
	truth := make([]TileTruth, len(j.Tiles))
	for i := range j.Tiles {
		t := &j.Tiles[i]
		truth[i] = TileTruth{Tile: t, K: read(t, quant.HalfK, t.KCoded), V: read(t, quant.HalfV, t.VCoded)}
		if t.KCoded {
			truth[i].Codes, _ = dequant.Codes(g, t.Coded, j.Head, quant.HalfK)
		}
		if t.VCoded {
			_, truth[i].VBits = dequant.Codes(g, t.Coded, j.Head, quant.HalfV)
		}
	}
	return truth
}

// End is the first token of the page that query vector i does not see.
func (t *TileTruth) End(j *kernels.AttnJob, i int) int {
	return min(t.Hi, j.Limit[i/j.Group]-t.First)
}

// scoresOf is the scaled scores of query vector i, [tile][page token].
func scoresOf(j *kernels.AttnJob, truth []TileTruth, i int) [][]float64 {
	d := j.Geometry.HeadDim
	q := j.Q[i*d : (i+1)*d]
	all := make([][]float64, len(truth))
	for ti := range truth {
		t := &truth[ti]
		all[ti] = make([]float64, j.Geometry.Format.PageTokens)
		for tok := t.Lo; tok < t.End(j, i); tok++ {
			k := t.K[tok*d : (tok+1)*d]
			var sum float64
			for ch, x := range q {
				sum += float64(x) * k[ch]
			}
			all[ti][tok] = sum * float64(j.Scale)
		}
	}
	return all
}

// Oracle is the attention of query vector i over the values that the tiles stand
// for, in float64, and the weights, normalised, [tile][page token].
func Oracle(j *kernels.AttnJob, truth []TileTruth, i int) (out []float64, weights [][]float64) {
	d := j.Geometry.HeadDim
	weights = scoresOf(j, truth, i)
	top := math.Inf(-1)
	for ti := range truth {
		for tok := truth[ti].Lo; tok < truth[ti].End(j, i); tok++ {
			top = max(top, weights[ti][tok])
		}
	}
	out = make([]float64, d)
	var sum float64
	for ti := range truth {
		t := &truth[ti]
		for tok := t.Lo; tok < t.End(j, i); tok++ {
			weights[ti][tok] = math.Exp(weights[ti][tok] - top)
			sum += weights[ti][tok]
		}
	}
	for ti := range truth {
		t := &truth[ti]
		for tok := t.Lo; tok < t.End(j, i); tok++ {
			weights[ti][tok] /= sum
			for ch := range out {
				out[ch] += weights[ti][tok] * t.V[tok*d+ch]
			}
		}
	}
	return out, weights
}

// Bound is quant's bound of the error of every channel of query vector i, given
// the normalised weights, where P is coded over runs of span tokens of the
// sequence (hq; hack codes by its partitions).
func Bound(j *kernels.AttnJob, truth []TileTruth, i int, weights [][]float64, span int) []float64 {
	d := j.Geometry.HeadDim
	reach := make([]float64, d)
	var scoreError float64
	for ti := range truth {
		t := &truth[ti]
		for tok := t.Lo; tok < t.End(j, i); tok++ {
			if t.KCoded {
				scoreError = max(scoreError, queryError(j, t, j.Q[i*d:(i+1)*d], tok)*float64(j.Scale))
			}
			for ch := range reach {
				reach[ch] = max(reach[ch], math.Abs(t.V[tok*d+ch]))
			}
		}
	}
	if j.Geometry.Format.Family != quant.FamilyHQ {
		span = j.Geometry.Format.Partition
	}
	for ch := range reach {
		reach[ch] = quant.OutputBound(scoreError, weightError(j, truth, i, weights, ch, span), reach[ch])
	}
	return reach
}

func queryError(j *kernels.AttnJob, t *TileTruth, q []float32, tok int) float64 {
	g, d := j.Geometry, j.Geometry.HeadDim
	if g.Format.Dequantised() {
		return 0
	}
	if g.Format.Family == quant.FamilyHQ {
		var top, norm float64
		for ch, x := range q {
			top, norm = max(top, math.Abs(float64(x))), norm+math.Abs(t.K[tok*d+ch])
		}
		return g.Format.QueryBound(top, norm)
	}
	l, page := &g.Hack[quant.HalfK], g.CodedHead(t.Coded, j.Head)
	var sum float64
	for p := range l.Parts {
		from, to := l.Part(p, d)
		lo, hi, norm := math.Inf(1), math.Inf(-1), 0.0
		for ch := from; ch < to; ch++ {
			x, k := float64(q[ch]), t.K[tok*d+ch]
			if g.Format.Family == quant.FamilyHackV2 {
				scale, zero := dequant.Params(g, page, quant.HalfK, tok, ch, g.Format.Bits)
				x, k = x*scale, (k-zero)/scale
			}
			lo, hi, norm = min(lo, x), max(hi, x), norm+math.Abs(k)
		}
		sum += g.Format.QueryBound(hi-lo, norm)
	}
	return sum
}

// weightError is the bound of Σ w·v of the coded tokens in one channel.
func weightError(j *kernels.AttnJob, truth []TileTruth, i int, weights [][]float64, ch, span int) float64 {
	if j.Geometry.Format.Dequantised() {
		return 0
	}
	hq := j.Geometry.Format.Family == quant.FamilyHQ
	type run struct {
		lo, hi, norm float64
		tokens       int
	}
	runs := map[int]*run{}
	for ti := range truth {
		t := &truth[ti]
		if !t.VCoded {
			continue
		}
		for tok := t.Lo; tok < t.End(j, i); tok++ {
			r := runs[(t.First+tok)/span]
			if r == nil {
				r = &run{lo: math.Inf(1)}
				runs[(t.First+tok)/span] = r
			}
			fold, v := Folded(j, t, tok, ch)
			r.lo, r.hi, r.norm = min(r.lo, weights[ti][tok]*fold), max(r.hi, weights[ti][tok]*fold), r.norm+math.Abs(v)
			r.tokens++
		}
	}
	var sum float64
	for _, r := range runs {
		if hq || r.tokens < span {
			r.lo = 0
		}
		sum += j.Geometry.Format.WeightBound(r.hi-r.lo, r.norm)
	}
	return sum
}

// Folded is what a coded token's weight is multiplied by before it is quantised,
// and what the quantised weight is multiplied with.
func Folded(j *kernels.AttnJob, t *TileTruth, tok, ch int) (fold, v float64) {
	g := j.Geometry
	v = t.V[tok*g.HeadDim+ch]
	page := g.CodedHead(t.Coded, j.Head)
	switch g.Format.Family {
	case quant.FamilyHack:
		return 1, v
	case quant.FamilyHackV2:
		scale, zero := dequant.Params(g, page, quant.HalfV, tok, ch, g.Format.Bits)
		return scale, (v - zero) / scale
	}
	b := t.VBits[tok*g.HeadDim+ch]
	scale, zero := dequant.Params(g, page, quant.HalfV, tok, ch, b)
	if scale == 0 {
		return 0, 0
	}
	centre := zero + scale*float64(int(1)<<b-1)/2
	if b == 4 {
		scale *= 4
	}
	return scale, (v - centre) / scale
}
