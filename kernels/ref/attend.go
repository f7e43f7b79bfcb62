package ref

import (
	"math"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// itemVectors is the number of query vectors (row × query head) of one item of
// parallel work: enough that unpacking a page's codes is paid once for many.
// Items depend on nothing else, so that results do not change with the threads.
const itemVectors = 64

// lanes is the number of query vectors that are computed side by side.
const lanes = 4

// Attend runs the jobs over the cores. Every row's result depends on its own
// query and tokens only, bit for bit, however rows are grouped into jobs.
func (o *Ops) Attend(jobs []kernels.AttnJob) {
	var items []attendItem
	for i := range jobs {
		n := len(jobs[i].Limit) * jobs[i].Group
		for v := 0; v < n; v += itemVectors {
			items = append(items, attendItem{&jobs[i], v, min(v+itemVectors, n)})
		}
	}
	o.Parallel(len(items), kernels.TaskFunc(func(i int) {
		s, _ := o.attends.Get().(*attender)
		if s == nil {
			s = new(attender)
		}
		s.run(items[i])
		o.attends.Put(s)
	}))
}

// attendItem is the query vectors [lo, hi) of a job; vector i is query head
// i%Group of row i/Group.
type attendItem struct {
	job    *kernels.AttnJob
	lo, hi int
}

// limit is the number of tokens that vector v of the item sees.
func (it *attendItem) limit(v int) int { return it.job.Limit[(it.lo+v)/it.job.Group] }

// query is vector v of the item.
func (it *attendItem) query(v int) []float32 {
	d := it.job.Geometry.HeadDim
	return it.job.Q[(it.lo+v)*d : (it.lo+v+1)*d]
}

// rounding is how vector v's Q or P is rounded: the vector is named by its
// query head and position, so that chunking cannot change its codes.
func (it *attendItem) rounding(v, stream int) quant.Rounding {
	j := it.job
	head := j.Head*j.Group + (it.lo+v)%j.Group
	return j.Geometry.Format.Rounding(j.Layer, head, stream).At(it.limit(v) - 1)
}

// keyReader computes scores against one form of K.
type keyReader interface {
	// prepare sees the item's queries, once.
	prepare(it *attendItem)
	// loadKeys takes in a tile.
	loadKeys(it *attendItem, t *kernels.Tile)
	// scores sets b.w[lane][t] = q·k for tokens [b.lo, b.hi) at least.
	scores(it *attendItem, b *block)
}

// valueReader weighs one form of V.
type valueReader interface {
	loadValues(it *attendItem, t *kernels.Tile)
	// values sets b.out[lane] = Σ_t b.w[lane][t]·v_t.
	values(it *attendItem, b *block)
}

// block is four query vectors at one tile.
type block struct {
	first  int              // the item's vector in lane 0
	tile   int              // position of the page's token 0
	lo, hi int              // tokens of the page that any lane sees
	end    [lanes]int       // the lane sees tokens [lo, end)
	w      [lanes][]float32 // [page token] scores, then weights; 0 where not seen
	out    [lanes][]float32 // [channel]
}

// attender is the scratch of one worker.
type attender struct {
	states  []State
	acc     []float32
	b       block
	scratch []float32
	exact   exactReader
	hq      hqReader
	hack    hackReader
	hackV2  hackV2Reader
	widen   widenReader
}

// run computes one item: tiles in order, each tile's form taken in once for all
// vectors, each vector's softmax local to the tile and merged by log-sum-exp.
func (s *attender) run(it attendItem) {
	n, g := it.hi-it.lo, it.job.Geometry
	s.reset(n, g)
	if codedKeys(it.job) {
		s.keys(g, true).prepare(&it)
	}
	for i := range it.job.Tiles {
		t := &it.job.Tiles[i]
		if !s.seen(&it, t) {
			continue
		}
		keys, values := s.keys(g, t.KCoded), s.values(g, t.VCoded)
		keys.loadKeys(&it, t)
		values.loadValues(&it, t)
		for v := 0; v < n; v += lanes {
			if s.b.aim(&it, t, v, n) {
				keys.scores(&it, &s.b)
				s.addTile(&it, values)
			}
		}
	}
	d := g.HeadDim
	for v := range n {
		s.states[v].Finish(it.job.Out[(it.lo+v)*d : (it.lo+v+1)*d])
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

// seen reports whether any of the item's vectors sees any of the tile.
func (s *attender) seen(it *attendItem, t *kernels.Tile) bool {
	for v := range it.hi - it.lo {
		if it.limit(v) > t.First+t.Lo {
			return true
		}
	}
	return false
}

func (s *attender) reset(n int, g *quant.Geometry) {
	d, tokens := g.HeadDim, g.Format.PageTokens
	s.acc = grow(s.acc, n*d)
	clear(s.acc)
	s.states = grow(s.states, n)
	for v := range s.states {
		s.states[v] = State{Top: float32(math.Inf(-1)), Acc: s.acc[v*d : (v+1)*d]}
	}
	s.scratch = grow(s.scratch, lanes*(d+tokens))
	for l := range lanes {
		s.b.w[l] = s.scratch[l*tokens : (l+1)*tokens]
		s.b.out[l] = s.scratch[lanes*tokens+l*d:][:d]
	}
}

func (s *attender) keys(g *quant.Geometry, coded bool) keyReader {
	switch {
	case !coded:
		return &s.exact
	case g.Format.Family == quant.FamilyHQ:
		return &s.hq
	case g.Format.Family == quant.FamilyHack:
		return &s.hack
	case g.Format.Family == quant.FamilyHackV2:
		return &s.hackV2
	case g.Format.Dequantised():
		return &s.widen
	}
	panic("BUG: a coded tile of format " + g.Format.Name)
}

func (s *attender) values(g *quant.Geometry, coded bool) valueReader {
	return s.keys(g, coded).(valueReader)
}

// aim turns the block to the vectors from v on at tile t, and reports whether
// any of them sees any of it.
func (b *block) aim(it *attendItem, t *kernels.Tile, v, n int) bool {
	b.first, b.tile, b.lo, b.hi = v, t.First, t.Lo, t.Lo
	for l := range lanes {
		b.end[l] = t.Lo
		if v+l < n {
			b.end[l] = min(max(it.limit(v+l)-t.First, t.Lo), t.Hi)
		}
		b.hi = max(b.hi, b.end[l])
	}
	return b.hi > b.lo
}

// addTile turns the block's scores into weights and adds the weighted values to
// its vectors' states.
func (s *attender) addTile(it *attendItem, values valueReader) {
	b := &s.b
	var top, sum [lanes]float32
	for l := range lanes {
		top[l], sum[l] = softmax(b.w[l], b.lo, b.end[l], it.job.Scale)
	}
	values.values(it, b)
	for l := range lanes {
		if b.end[l] > b.lo {
			s.states[b.first+l].Merge(State{Top: top[l], Sum: sum[l], Acc: b.out[l]})
		}
	}
}

// softmax turns scores [lo, hi) into exp(scale·s - top), where top is the
// largest scaled score, zeroes the others and returns top and the weights' sum.
func softmax(w []float32, lo, hi int, scale float32) (top, sum float32) {
	clear(w[:lo])
	clear(w[hi:])
	s := w[lo:hi]
	top = float32(math.Inf(-1))
	for i, v := range s {
		v *= scale
		s[i] = v
		top = max(top, v)
	}
	for i, v := range s {
		e := expNeg(v - top)
		s[i] = e
		sum += e
	}
	return top, sum
}

// grow returns b with length n; its contents are anything.
func grow[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	return b[:n]
}
