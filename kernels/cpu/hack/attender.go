package hack

import (
	"math"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// lanes is the number of query vectors that are computed together.
const lanes = 4

// Lent is what an Attender is lent for what is not particular to the formats.
type Lent struct {
	// QK sets w[i·ld + t] to the product of query vector i of n (q is [vector][d])
	// and row t of the float16 rows ([token][d]).
	QK func(w []float32, ld int, q []float32, n, d int, rows []byte)
	// PV adds the rows, weighted with w[i·ld + t], to vector i of acc ([vector][d]).
	PV func(acc []float32, n, d int, w []float32, ld int, rows []byte)
	// Softmax turns scores into exp(scale·s - top), top being the largest of
	// scale·s, and returns top and the weights' sum.
	Softmax func(s []float32, scale float32) (top, sum float32)
}

// Attender computes attention jobs over pages of the hack formats. It is the
// scratch of one worker, and not for concurrent use.
type Attender struct {
	kernels Kernels
	lent    Lent

	job    *kernels.AttnJob
	g      *quant.Geometry
	lo     int       // the item's first vector
	states []state   // [vector]
	acc    []float64 // [vector][channel], the states' sums

	tile  *kernels.Tile
	first int           // the block's first vector, of the item
	n     int           // the block's vectors
	end   [lanes]int    // each sees page tokens [tile.Lo, end)
	hi    int           // the largest end
	w     []float32     // [lane][page token]: scores, then weights; 0 where not seen
	out   []float64     // [lane][channel]
	exact []float32     // [lane][channel]
	k, v  half          // the tile's
	sums  []int32       // of products: [part][lane][token], or [lane][width]
	score []float64     // [token]
	codes []byte        // of weights, [lane][page token]
	a     [lanes]affine // of the weights
	fold  []float32     // one vector times scales
	q     []byte        // codes of the queries, [vector][width]; hack:v2: [lane][width]
	qa    []affine      // [vector or lane][part]

	ones, zeros [maxWidth]float64 // scales that are folded into the other operand
}

// state is the attention of one vector over the tiles so far: the largest scaled
// score and the sum of exp(score - top); acc has the values weighted likewise.
type state struct{ top, sum float32 }

// NewAttender makes an Attender of a level that this machine has.
func NewAttender(l cpu.Level, lent Lent) *Attender {
	a := &Attender{kernels: For(l), lent: lent}
	for i := range a.ones {
		a.ones[i] = 1
	}
	return a
}

// Run computes query vectors [lo, hi) of a job (vector i is query head i%Group of
// row i/Group). A vector's result does not depend on the others.
func (a *Attender) Run(j *kernels.AttnJob, lo, hi int) {
	a.job, a.g, a.lo = j, j.Geometry, lo
	a.reset(hi - lo)
	for i := range j.Tiles {
		t := &j.Tiles[i]
		if !a.take(t, hi-lo) {
			continue
		}
		for v := 0; v < hi-lo; v += lanes {
			if a.aim(v, min(lanes, hi-lo-v)) {
				a.block()
			}
		}
	}
	d := a.g.HeadDim
	for v, s := range a.states {
		out := j.Out[(lo+v)*d:][:d]
		clear(out)
		if s.sum != 0 { // a NaN must not be hidden
			inv := 1 / float64(s.sum)
			for c := range out {
				out[c] = float32(a.acc[v*d+c] * inv)
			}
		}
	}
	a.job, a.g, a.tile = nil, nil, nil
}

func (a *Attender) reset(n int) {
	d, tokens := a.g.HeadDim, a.g.Format.PageTokens
	k, v := &a.g.Hack[quant.HalfK], &a.g.Hack[quant.HalfV]
	a.states = grow(a.states, n)
	for i := range a.states {
		a.states[i] = state{top: float32(math.Inf(-1))}
	}
	a.acc = grow(a.acc, n*d)
	clear(a.acc)
	a.w, a.codes, a.score = grow(a.w, lanes*tokens), grow(a.codes, lanes*tokens), grow(a.score, tokens)
	a.out, a.exact, a.fold = grow(a.out, lanes*d), grow(a.exact, lanes*d), grow(a.fold, max(d, tokens))
	a.sums = grow(a.sums, lanes*max(k.Parts*tokens, v.Width))
	vectors := lanes
	if a.g.Format.Family == quant.FamilyHack {
		vectors = max(n, lanes)
	}
	a.q, a.qa = grow(a.q, vectors*k.Width), grow(a.qa, vectors*k.Parts)
	clear(a.q) // the padding of the last word weighs nothing
	if a.g.Format.Family == quant.FamilyHack && codedKeys(a.job) {
		a.quantiseQueries(n)
	}
}

func codedKeys(j *kernels.AttnJob) bool {
	for i := range j.Tiles {
		if j.Tiles[i].KCoded {
			return true
		}
	}
	return false
}

// take takes in a tile, and reports whether any of the item's n vectors sees any
// of it.
func (a *Attender) take(t *kernels.Tile, n int) bool {
	seen := false
	for v := 0; v < n && !seen; v++ {
		seen = a.limit(v) > t.First+t.Lo
	}
	if !seen {
		return false
	}
	a.tile = t
	if t.KCoded {
		a.k.load(a.kernels, a.g, t.Coded, a.job.Head, quant.HalfK)
	}
	if t.VCoded {
		a.v.load(a.kernels, a.g, t.Coded, a.job.Head, quant.HalfV)
	}
	return true
}

// limit is the number of tokens that vector v of the item sees.
func (a *Attender) limit(v int) int { return a.job.Limit[(a.lo+v)/a.job.Group] }

// queries are n vectors of the item from v on.
func (a *Attender) queries(v, n int) []float32 {
	d := a.g.HeadDim
	return a.job.Q[(a.lo+v)*d : (a.lo+v+n)*d]
}

// rounding is how vector v's Q or P is rounded: the vector is named by its query
// head and position, so that chunking cannot change its codes.
func (a *Attender) rounding(v, stream int) quant.Rounding {
	head := a.job.Head*a.job.Group + (a.lo+v)%a.job.Group
	return a.g.Format.Rounding(a.job.Layer, head, stream).At(a.limit(v) - 1)
}

// aim turns to n vectors from v on at the tile, and reports whether any of them
// sees any of it.
func (a *Attender) aim(v, n int) bool {
	t := a.tile
	a.first, a.n, a.hi = v, n, t.Lo
	for l := range lanes {
		a.end[l] = t.Lo
		if l < n {
			a.end[l] = min(max(a.limit(v+l)-t.First, t.Lo), t.Hi)
		}
		a.hi = max(a.hi, a.end[l])
	}
	return a.hi > t.Lo
}

// block does the vectors aimed at: scores, weights, values.
func (a *Attender) block() {
	a.readKeys()
	var tile [lanes]state
	for l := range a.n {
		tile[l] = a.soften(l)
	}
	a.readValues()
	d := a.g.HeadDim
	for l := range a.n {
		if a.end[l] > a.tile.Lo {
			a.merge(a.first+l, tile[l], a.out[l*d:(l+1)*d])
		}
	}
}

// readKeys sets w to the block's scores, at least where they are seen.
func (a *Attender) readKeys() {
	t := a.tile
	switch {
	case !t.KCoded:
		row := 2 * a.g.HeadDim
		rows := a.g.ExactK(t.Exact, a.job.Head)[t.Lo*row : a.hi*row]
		a.lent.QK(a.w[t.Lo:], a.g.Format.PageTokens, a.queries(a.first, a.n), a.n, a.g.HeadDim, rows)
	case a.g.Format.Family == quant.FamilyHackV2:
		a.scoresV2()
	default:
		a.scores()
	}
}

// soften turns a lane's scores into weights, local to the tile.
func (a *Attender) soften(l int) state {
	w := a.w[l*a.g.Format.PageTokens:][:a.g.Format.PageTokens]
	lo, end := a.tile.Lo, a.end[l]
	clear(w[:lo])
	clear(w[end:])
	if end == lo {
		return state{}
	}
	top, sum := a.lent.Softmax(w[lo:end], a.job.Scale)
	return state{top, sum}
}

// readValues sets out to the weighted values.
func (a *Attender) readValues() {
	switch {
	case !a.tile.VCoded:
		a.exactValues()
	case a.g.Format.Family == quant.FamilyHackV2:
		a.valuesV2()
	default:
		a.values()
	}
}

func (a *Attender) exactValues() {
	t, d := a.tile, a.g.HeadDim
	clear(a.exact)
	a.lent.PV(a.exact, a.n, d, a.w[t.Lo:], a.g.Format.PageTokens, a.g.ExactV(t.Exact, a.job.Head)[2*t.Lo*d:2*a.hi*d])
	for i, x := range a.exact[:a.n*d] {
		a.out[i] = float64(x)
	}
}

// merge adds a tile's tokens to a vector's state.
func (a *Attender) merge(v int, tile state, out []float64) {
	s := &a.states[v]
	top := max(s.top, tile.top)
	old, add := math.Exp(float64(s.top-top)), math.Exp(float64(tile.top-top))
	*s = state{top, float32(old*float64(s.sum) + add*float64(tile.sum))}
	a.kernels.Blend(a.acc[v*len(out):][:len(out)], out, old, add)
}

// grow returns b with length n; its contents are anything.
func grow[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	return b[:n]
}
