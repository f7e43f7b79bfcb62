package hack

import (
	"math"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

const (
	// Lanes is the number of query vectors that are computed together.
	Lanes = 4
	// GroupTokens is the positions that are computed together, and that share a
	// softmax: tiles of one such stretch of a sequence are a group.
	GroupTokens = 256
)

// Lent is what an Attender is lent for what is not particular to the formats.
type Lent struct {
	// W is where scores and weights are, [Lanes][GroupTokens].
	W []float32
	// QK sets w[i·ld + t] to the product of query vector i of n (q is [vector][d])
	// and row t of the float16 rows ([token][d]).
	QK func(w []float32, ld int, q []float32, n, d int, rows []byte)
	// PV adds the rows, weighted with w[i·ld + t], to vector i of acc ([vector][d]).
	PV func(acc []float32, n, d int, w []float32, ld int, rows []byte)
	// Weigh turns the scores of the first end[i] tokens of n rows of W into weights
	// 2^(scale·log2 e·s - top[i]), and those of the others up to tokens, a multiple of
	// 16, into 0. It raises the top of those that see any to the largest exponent, and
	// sets sum to their weights'.
	Weigh func(n, tokens int, end *[Lanes]int, scale float32, top, sum *[Lanes]float32)
	// Exp2 is 2^y for y <= 0, as Weigh computes it.
	Exp2 func(y float32) float32
}

// State is the attention of some vectors over some tokens: the largest score in
// bits, the sum of the weights 2^(score - top), and the values weighted likewise.
type State struct {
	Top, Sum []float32 // [vector]; -Inf and 0 where no token is seen
	Acc      []float32 // [vector][channel]
}

// Attender computes attention jobs over pages of the hack formats. It is the
// scratch of one worker, and not for concurrent use.
type Attender struct {
	kernels Kernels
	lent    Lent

	job    *kernels.AttnJob
	g      *quant.Geometry
	lo     int // the item's first vector
	states State
	acc    []float64 // [vector][channel], the states' values

	group  []piece
	next   []byte     // what is read after the group
	pieces int        // of group
	tokens int        // from the group's beginning to where it ends, in whole blocks
	first  int        // the block's first vector, of the item
	n      int        // the block's vectors
	end    [Lanes]int // of what each lane sees of the group
	top    [Lanes]float32
	sum    [Lanes]float32
	out    []float64         // [lane][channel]
	exact  []float32         // [lane][channel]
	sums   []int32           // of products: [part][lane][token], or [lane][width]
	score  []float64         // [token]
	codes  []byte            // of weights, [lane][block token]
	a      [Lanes]affine     // of the weights
	fold   []float32         // [lane][channel or block token], times scales
	part   []float32         // [lane][block token], where a tile begins within a block
	q      []byte            // codes of the queries, [vector][width]; hack:v2: [lane][width]
	qa     []affine          // [vector or lane][part]
	rounds [2]coding         // of the queries, and of the weights, of all vectors
	base   [Lanes]float64    // hack:v2: Σ q·min, or Σ w·min
	ones   [maxWidth]float64 // scales that are folded into the other operand
	zeros  [maxWidth]float64
}

const (
	roundQ = iota
	roundP
)

// piece is a tile of a group.
type piece struct {
	*kernels.Tile
	at   int        // of the tile's page in the group
	end  [Lanes]int // each lane sees page tokens [Lo, end)
	hi   int        // the largest end
	k, v half

	loaded [2]bool // k and v; they are when they are first read
}

// NewAttender makes an Attender of a level that this machine has.
func NewAttender(l cpu.Level, lent Lent) *Attender {
	a := &Attender{kernels: For(l), lent: lent}
	for i := range a.ones {
		a.ones[i] = 1
	}
	return a
}

// Span sets s to the attention of query vectors [lo, hi) of a job (vector i is query
// head i%Group of row i/Group) over its tiles [from, to). A vector's result does not
// depend on the others.
func (a *Attender) Span(j *kernels.AttnJob, lo, hi, from, to int, s State) {
	a.job, a.g, a.lo, a.states = j, j.Geometry, lo, s
	n, d := hi-lo, a.g.HeadDim
	if n == 0 {
		return
	}
	tiles := j.Tiles[from:to]
	a.reset(n, tiles)
	for len(tiles) > 0 {
		end := 1
		for end < len(tiles) && tiles[end].First/GroupTokens == tiles[0].First/GroupTokens {
			end++
		}
		a.next = nil
		if end < len(tiles) && tiles[end].KCoded {
			a.next = a.g.CodedHead(tiles[end].Coded, j.Head)[:a.g.Hack[quant.HalfV].Min]
		}
		if a.take(tiles[:end], n) {
			for v := 0; v < n; v += Lanes {
				if a.aim(v, min(Lanes, n-v)) {
					a.block()
				}
			}
		}
		tiles = tiles[end:]
	}
	a.kernels.Narrow(s.Acc[:n*d], a.acc)
	a.job, a.g, a.states, a.next = nil, nil, State{}, nil
	for i := range a.group {
		a.group[i].Tile = nil
	}
}

func (a *Attender) reset(n int, tiles []kernels.Tile) {
	d, tokens := a.g.HeadDim, a.g.Format.PageTokens
	for i := range n {
		a.states.Top[i], a.states.Sum[i] = float32(math.Inf(-1)), 0
	}
	a.acc = grow(a.acc, n*d)
	clear(a.acc)
	k, v := &a.g.Hack[quant.HalfK], &a.g.Hack[quant.HalfV]
	width := a.g.Format.Partition
	a.codes, a.part, a.score = grow(a.codes, Lanes*width), grow(a.part, Lanes*width), grow(a.score, tokens)
	a.out, a.exact, a.fold = grow(a.out, Lanes*d), grow(a.exact, Lanes*d), grow(a.fold, Lanes*max(d, width))
	a.sums = grow(a.sums, Lanes*max(k.Parts*tokens, v.Width))
	v2 := a.g.Format.Family == quant.FamilyHackV2
	vectors := Lanes
	if !v2 {
		vectors = max(n, Lanes)
	}
	a.q, a.qa = grow(a.q, vectors*k.Width), grow(a.qa, vectors*k.Parts)
	clear(a.q) // the padding of the last word weighs nothing
	for i := range a.rounds {
		a.rounds[i].resize(n, a.g.Format.Stochastic)
	}
	for i := range n {
		a.rounds[roundQ].set(i, a.rounding(i, quant.StreamQ))
		a.rounds[roundP].set(i, a.rounding(i, quant.StreamP))
	}
	if !v2 && codedKeys(tiles) {
		a.quantiseQueries(n)
	}
}

func codedKeys(tiles []kernels.Tile) bool {
	for i := range tiles {
		if tiles[i].KCoded {
			return true
		}
	}
	return false
}

// take takes in a group's tiles, and reports whether any of the item's n vectors
// sees any of them.
func (a *Attender) take(tiles []kernels.Tile, n int) bool {
	most := 0
	for v := range n {
		most = max(most, a.limit(v))
	}
	a.pieces = 0
	for i := range tiles {
		t := &tiles[i]
		if most <= t.First+t.Lo {
			break
		}
		if a.pieces == len(a.group) {
			a.group = append(a.group, piece{})
		}
		p := &a.group[a.pieces]
		a.pieces++
		p.Tile, p.at = t, t.First-tiles[0].First
		p.loaded = [2]bool{}
	}
	return a.pieces > 0
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

// coding is how the block's queries or weights are rounded.
func (a *Attender) coding(which int) coding { return a.rounds[which].of(a.first, a.n) }

// aim turns to n vectors from v on at the group, and reports whether any of them
// sees any of it.
func (a *Attender) aim(v, n int) bool {
	a.first, a.n, a.tokens = v, n, 0
	width := a.g.Format.Partition
	for i := range a.group[:a.pieces] {
		p := &a.group[i]
		p.hi = p.Lo
		for l := range Lanes {
			p.end[l] = p.Lo
			if l < n {
				p.end[l] = min(max(a.limit(v+l)-p.First, p.Lo), p.Hi)
			}
			p.hi = max(p.hi, p.end[l])
		}
		if p.hi > p.Lo {
			a.tokens = p.at + (p.hi+width-1)/width*width
		}
	}
	return a.tokens > 0
}

// block does the vectors aimed at: scores, weights, values.
func (a *Attender) block() {
	for i := range a.group[:a.pieces] {
		if p := &a.group[i]; p.hi > p.Lo {
			a.fetchAfter(i, quant.HalfK)
			a.readKeys(p)
		}
	}
	alpha := a.weigh()
	clear(a.out)
	for i := range a.group[:a.pieces] {
		if p := &a.group[i]; p.hi > p.Lo {
			a.fetchAfter(i, quant.HalfV)
			a.readValues(p)
		}
	}
	d := a.g.HeadDim
	for l := range a.n {
		a.kernels.Blend(a.acc[(a.first+l)*d:][:d], a.out[l*d:][:d], float64(alpha[l]), 1)
	}
}

// fetchAfter fetches what is read after one half of tile i, if it is coded: the half of the
// next tile, then the values of the first, then the keys of the next group.
func (a *Attender) fetchAfter(i, half int) {
	switch {
	case a.first > 0: // it has been read
	case i+1 < a.pieces:
		a.fetchHalf(&a.group[i+1], half)
	case half == quant.HalfK:
		a.fetchHalf(&a.group[0], quant.HalfV)
	default:
		a.kernels.fetch(a.next)
	}
}

func (a *Attender) fetchHalf(p *piece, half int) {
	values := a.g.Hack[quant.HalfV].Min
	switch {
	case half == quant.HalfK && p.KCoded:
		a.kernels.fetch(a.g.CodedHead(p.Coded, a.job.Head)[:values])
	case half == quant.HalfV && p.VCoded:
		a.kernels.fetch(a.g.CodedHead(p.Coded, a.job.Head)[values:])
	}
}

// load reads a half's numbers, if no block of vectors has before.
func (a *Attender) load(p *piece, h *half, which int) {
	if !p.loaded[which] {
		h.load(a.kernels, a.g, p.Coded, a.job.Head, which)
		p.loaded[which] = true
	}
}

// row is a lane's scores or weights from the group's token at on.
func (a *Attender) row(lane, at int) []float32 {
	return a.lent.W[lane*GroupTokens+at : (lane+1)*GroupTokens]
}

// readKeys sets the block's scores in a tile, at least where they are seen.
func (a *Attender) readKeys(p *piece) {
	if p.KCoded {
		a.load(p, &p.k, quant.HalfK)
	}
	switch {
	case !p.KCoded:
		row := 2 * a.g.HeadDim
		rows := a.g.ExactK(p.Exact, a.job.Head)[p.Lo*row : p.hi*row]
		a.lent.QK(a.lent.W[p.at+p.Lo:], GroupTokens, a.queries(a.first, a.n), a.n, a.g.HeadDim, rows)
	case a.g.Format.Family == quant.FamilyHackV2:
		a.scoresV2(p)
	default:
		a.scores(p)
	}
}

// weigh turns the group's scores into weights and counts them, and returns what the
// values so far are worth afterwards.
func (a *Attender) weigh() (alpha [Lanes]float32) {
	end, top, sum := &a.end, &a.top, &a.sum
	before := a.group[0].Lo // nothing sees what lies before the group's first tile
	for l := range a.n {
		end[l] = 0
		for i := range a.group[:a.pieces] {
			if p := &a.group[i]; p.end[l] > p.Lo {
				end[l] = p.at + p.end[l]
			}
		}
		top[l] = a.states.Top[a.first+l]
		w := a.row(l, 0)[:before]
		for i := range w {
			w[i] = float32(math.Inf(-1))
		}
	}
	a.lent.Weigh(a.n, a.tokens, end, a.job.Scale, top, sum)
	for l := range a.n {
		alpha[l] = 1
		v := a.first + l
		if end[l] == 0 {
			continue
		}
		if old := a.states.Top[v]; old != top[l] {
			alpha[l] = a.lent.Exp2(old - top[l])
		}
		a.states.Top[v], a.states.Sum[v] = top[l], alpha[l]*a.states.Sum[v]+sum[l]
	}
	return alpha
}

// readValues adds a tile's weighted values to out.
func (a *Attender) readValues(p *piece) {
	if p.VCoded {
		a.load(p, &p.v, quant.HalfV)
	}
	switch {
	case !p.VCoded:
		a.exactValues(p)
	case a.g.Format.Family == quant.FamilyHackV2:
		a.valuesV2(p)
	default:
		a.values(p)
	}
}

func (a *Attender) exactValues(p *piece) {
	d := a.g.HeadDim
	clear(a.exact)
	a.lent.PV(a.exact, a.n, d, a.lent.W[p.at+p.Lo:], GroupTokens, a.g.ExactV(p.Exact, a.job.Head)[2*p.Lo*d:2*p.hi*d])
	for i, x := range a.exact[:a.n*d] {
		a.out[i] += float64(x)
	}
}

// grow returns b with length n; its contents are anything.
func grow[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	return b[:n]
}
