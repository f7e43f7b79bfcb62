package cpu

import (
	"math"
	"sync/atomic"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/hack"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
)

const (
	// spanTokens is the positions of one span: the smallest piece of a sequence
	// that is worth another core.
	spanTokens = 2048
	// itemVectors is the most query vectors of one piece of work: enough that the
	// preparation of pages is paid once for many, few enough that their weights
	// stay in the cache.
	itemVectors = 64
	// splitVectors is the most vectors of a job whose spans are shared out: few
	// vectors over many tokens are a decode step.
	splitVectors = 16
)

// attending is one Attend.
type attending struct {
	ops   *Ops
	items []attendItem
	split []splitJob
	acc   []float32 // states of split jobs, [span][vector][HeadDim]
	top   []float32 // [span][vector], bits
	sum   []float32
}

// attendItem is the query vectors [lo, hi) of a job over its tiles [from, to);
// vector i is query head i%Group of row i/Group.
type attendItem struct {
	job      *kernels.AttnJob
	lo, hi   int
	from, to int
	split    int // index of the split job, -1 if the item is all there is
	state    int // its part of the split job's states, in vectors
}

// splitJob is some vectors whose spans are items of their own. The last one done
// folds them.
type splitJob struct {
	job    *kernels.AttnJob
	lo, hi int // vectors
	state  int // first of its states, in vectors
	acc    int // and where their outputs begin
	spans  int
	left   atomic.Int32
}

func (a *attending) plan(o *Ops, jobs []kernels.AttnJob) {
	a.ops = o
	states, floats := 0, 0
	for i := range jobs {
		j := &jobs[i]
		n := len(j.Limit) * j.Group
		if spans := countSpans(j); n <= splitVectors && spans > 1 {
			a.splitUp(j, n, spans, states, floats)
			states += spans * n
			floats += spans * n * j.Geometry.HeadDim
			continue
		}
		for v := 0; v < n; v += itemVectors {
			a.items = append(a.items, attendItem{job: j, lo: v, hi: min(v+itemVectors, n), to: len(j.Tiles), split: -1})
		}
	}
	a.acc, a.top, a.sum = grow(a.acc, floats), grow(a.top, states), grow(a.sum, states)
}

func (a *attending) splitUp(j *kernels.AttnJob, n, spans, state, acc int) {
	index := len(a.split)
	if index < cap(a.split) {
		a.split = a.split[:index+1]
	} else {
		a.split = append(a.split, splitJob{})
	}
	s := &a.split[index]
	s.job, s.lo, s.hi, s.state, s.acc, s.spans = j, 0, n, state, acc, spans
	s.left.Store(int32(spans))
	for from := 0; from < len(j.Tiles); {
		to := spanEnd(j.Tiles, from)
		a.items = append(a.items, attendItem{job: j, hi: n, from: from, to: to, split: index, state: state})
		state += n
		from = to
	}
}

// forget lets go of what the caller owns.
func (a *attending) forget() {
	clear(a.items)
	a.items = a.items[:0]
	for i := range a.split {
		a.split[i].job = nil
	}
	a.split = a.split[:0]
}

// spanEnd is the first tile after from that lies in another span.
func spanEnd(tiles []kernels.Tile, from int) int {
	span, to := tiles[from].First/spanTokens, from+1
	for to < len(tiles) && tiles[to].First/spanTokens == span {
		to++
	}
	return to
}

func countSpans(j *kernels.AttnJob) int {
	n := 0
	for from := 0; from < len(j.Tiles); from = spanEnd(j.Tiles, from) {
		n++
	}
	return n
}

// Do runs item i.
func (a *attending) Do(i int) {
	it := &a.items[i]
	s := a.ops.scratch.Get().(*attender)
	s.ops, s.follow = a.ops, nil
	if n := i + a.ops.threads; n < len(a.items) && a.items[n].job.Geometry == it.job.Geometry { // items are taken in turns
		s.follow = &a.items[n]
	}
	if it.split < 0 {
		s.run(it)
	} else {
		a.runSpan(s, it)
	}
	s.follow = nil
	a.ops.scratch.Put(s)
}

// runSpan computes one span of a split job, and the job's result if it is the
// last one to be done.
func (a *attending) runSpan(s *attender, it *attendItem) {
	j := &a.split[it.split]
	n, d := it.hi-it.lo, it.job.Geometry.HeadDim
	s.start(it)
	s.span(it, it.from, it.to)
	at := j.acc + (it.state-j.state)*d
	copy(a.acc[at:at+n*d], s.acc)
	copy(a.top[it.state:it.state+n], s.top)
	copy(a.sum[it.state:it.state+n], s.sum)
	if j.left.Add(-1) > 0 {
		return
	}
	s.reset(&s.total, n, d)
	for span := range j.spans {
		states, accs := j.state+span*n, j.acc+span*n*d
		s.total.fold(&state{a.top[states:][:n], a.sum[states:][:n], a.acc[accs:][:n*d]}, d)
	}
	s.total.finish(it.job.Out[:n*d], d)
}

// state is the attention of some vectors over some of their tokens: the largest
// score in bits, the sum of the weights 2^(score - top), and the values weighted
// likewise. States of disjoint tokens fold in any order, up to rounding.
type state struct {
	top []float32 // [vector], -Inf while there are no tokens
	sum []float32 // [vector]
	acc []float32 // [vector][HeadDim]
}

// fold adds the tokens of o.
func (s *state) fold(o *state, d int) {
	for v := range s.top {
		if o.sum[v] == 0 {
			continue
		}
		mine, theirs := s.acc[v*d:(v+1)*d], o.acc[v*d:(v+1)*d]
		if s.sum[v] == 0 {
			s.top[v], s.sum[v] = o.top[v], o.sum[v]
			copy(mine, theirs)
			continue
		}
		top := max(s.top[v], o.top[v])
		a, b := softmax.Exp2(s.top[v]-top), softmax.Exp2(o.top[v]-top)
		s.top[v], s.sum[v] = top, a*s.sum[v]+b*o.sum[v]
		for c, x := range theirs {
			mine[c] = a*mine[c] + b*x
		}
	}
}

// finish writes the outputs, zeros where no token was seen.
func (s *state) finish(out []float32, d int) {
	for v, sum := range s.sum {
		if sum == 0 {
			clear(out[v*d : (v+1)*d])
			continue
		}
		inv := 1 / sum
		for c, x := range s.acc[v*d : (v+1)*d] {
			out[v*d+c] = x * inv
		}
	}
}

// attender is the scratch of one core.
type attender struct {
	ops     *Ops
	state         // of the span
	total   state // of the spans before it
	tile    softmax.Tile
	q       codedQueries
	k, v    codedScales
	ints    codedSums
	pages   [][]byte                          // the coded tile's pages of one KV head
	topOnly [softmax.Tokens / pageTokens]bool // of the pages
	follow  *attendItem                       // what the core probably does next; may be nil
	passes  passes
	exact   exactScratch
	group   groupScratch
	hack    *hack.Attender
}

func (s *attender) reset(t *state, n, d int) {
	t.top, t.sum, t.acc = grow(t.top, n), grow(t.sum, n), grow(t.acc, n*d)
	clear(t.sum)
	clear(t.acc)
	for v := range t.top {
		t.top[v] = float32(math.Inf(-1))
	}
}

// run computes a whole item, span by span.
func (s *attender) run(it *attendItem) {
	n, d := it.hi-it.lo, it.job.Geometry.HeadDim
	s.start(it)
	s.reset(&s.total, n, d)
	for from := it.from; from < it.to; {
		to := spanEnd(it.job.Tiles[:it.to], from)
		s.span(it, from, to)
		s.total.fold(&s.state, d)
		from = to
	}
	s.total.finish(it.job.Out[it.lo*d:it.hi*d], d)
}

// start prepares the item's queries for what its tiles need.
func (s *attender) start(it *attendItem) {
	if widens(it.job) || hacked(it.job) {
		return
	}
	for i := it.from; i < it.to; i++ {
		switch g := it.job.Geometry; {
		case !it.job.Tiles[i].KCoded:
			continue
		case grouped(it.job):
			s.group.queries.Prepare(&g.Group, it.job.Q[it.lo*g.HeadDim:it.hi*g.HeadDim], it.hi-it.lo)
		default:
			s.q.prepare(s.ops.codes, it)
			s.passes.prepare(g)
		}
		return
	}
}

// span computes the item over its tiles [from, to), one span's.
func (s *attender) span(it *attendItem, from, to int) {
	n, d := it.hi-it.lo, it.job.Geometry.HeadDim
	s.reset(&s.state, n, d)
	if hacked(it.job) {
		s.hackSpan(it, from, to)
		return
	}
	for from < to {
		end := from + tileEnd(it.job, it.job.Tiles[from:to])
		tiles, next := it.job.Tiles[from:end], s.after(it, end)
		switch {
		case !tiles[0].KCoded || widens(it.job):
			s.exactTile(it, tiles, next)
		case grouped(it.job):
			s.groupTile(it, tiles, next)
		default:
			s.codedTile(it, tiles, next)
		}
		from = end
	}
}

// tileEnd is how many of a job's tiles are computed together with the first: they
// are of one kind (where that matters) and lie in one block of 256 positions.
func tileEnd(j *kernels.AttnJob, tiles []kernels.Tile) int {
	t, any := &tiles[0], widens(j)
	if t.KCoded != t.VCoded && !any {
		panic("BUG: K and V of one token in two forms")
	}
	end := 1
	for end < len(tiles) && (any || tiles[end].KCoded == t.KCoded && tiles[end].VCoded == t.VCoded) &&
		tiles[end].First/softmax.Tokens == t.First/softmax.Tokens {
		end++
	}
	return end
}

// aim sets which tokens of some tiles the vectors [v, v+nq) see, offset by off
// tokens that lie before them in the softmax tile, and returns the most of them.
func (s *attender) aim(it *attendItem, tiles []kernels.Tile, v, nq int) int {
	most, row, first := 0, (it.lo+v)/it.job.Group, (it.lo+v)%it.job.Group
	for i := 0; i < nq; row, first = row+1, 0 {
		limit, end := it.job.Limit[row], 0
		for t := range tiles {
			end += min(max(limit-tiles[t].First-tiles[t].Lo, 0), tiles[t].Hi-tiles[t].Lo)
		}
		for ; first < it.job.Group && i < nq; first, i = first+1, i+1 {
			s.tile.End[i] = end
		}
		most = max(most, end)
	}
	return most
}

// raise brings the vectors' running maxima up to the tile's and returns what the
// outputs and sums so far are worth afterwards. A vector that sees nothing of the
// tile stays as it is.
func (s *attender) raise(v, nq int) (alpha [softmax.Vectors]float32) {
	for i := range nq {
		alpha[i], s.tile.Top[i] = 1, 0
		if s.tile.End[i] == 0 {
			continue
		}
		old := s.top[v+i]
		top := max(old, s.tile.Factor[i]*s.tile.Max[i])
		s.top[v+i], s.tile.Top[i] = top, top
		if old != top {
			alpha[i] = softmax.Exp2(old - top)
		}
	}
	return alpha
}

// count adds the tile's weights to the vectors' sums.
func (s *attender) count(v, nq int, alpha *[softmax.Vectors]float32) {
	for i := range nq {
		s.sum[v+i] = alpha[i]*s.sum[v+i] + s.tile.Sum[i]
	}
}

// groupOf is how many of n vectors are computed side by side.
func groupOf(n int) int {
	switch {
	case n >= 4:
		return 4
	case n >= 2:
		return 2
	}
	return 1
}

// grow returns b with length n; its contents are anything.
func grow[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	return b[:n]
}
