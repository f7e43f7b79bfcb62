package attention

import (
	"math/bits"
	"slices"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

const (
	// lastQueries is how many of a prompt's last queries say which of its tokens
	// matter to what follows.
	lastQueries = 64
	// reach is how far a token's weight spreads to its neighbours on both sides: a
	// query's weight lies on one or two tokens of what it reads.
	reach = 3
)

// watched is the rows [lo, hi) of the segment, counted from its first, whose
// attention says which tokens of the prompt matter.
func (s *Segment) watched() (lo, hi int) {
	if !s.View.Geometry.Format.Selects() {
		return 0, 0
	}
	lo, hi = max(0, s.View.PromptLen-lastQueries-s.Pos), min(s.Rows, s.View.PromptLen-s.Pos)
	return lo, max(lo, hi)
}

// Selects reports whether any row of the segments is asked which tokens matter:
// its query is needed in every layer then.
func Selects(segs []Segment) bool {
	for i := range segs {
		if lo, hi := segs[i].watched(); lo < hi {
			return true
		}
	}
	return false
}

// weigh adds up what the watched rows of the groups give to the prompt's tokens,
// and gives the important ones the second plane where the prompt ends.
func (r *Runner) weigh(layer int, segs []Segment) {
	kv := r.geometry.KVHeads
	for i := range r.groups {
		g := &r.groups[i]
		s := &segs[g.seg]
		lo, hi := s.watched()
		from := g.row - s.Row // of the segment
		lo, hi = max(lo-from, 0), min(hi-from, g.rows)
		if lo >= hi {
			continue
		}
		weights := weightsOf(s.View, layer)
		r.weighs = r.weighs[:0]
		for h := range kv {
			j := r.jobs[i*kv+h]
			n := j.Group * r.geometry.HeadDim
			j.Q, j.Limit = j.Q[lo*n:hi*n], j.Limit[lo:hi]
			j.Weights = weights[h*s.View.PromptLen:][:s.View.PromptLen]
			r.weighs = append(r.weighs, j)
		}
		r.ops.Weigh(r.weighs) // one group after another: the sums have one order
		if s.Pos+from+hi == s.View.PromptLen {
			r.selects = selection{runner: r, view: s.View, layer: layer, weights: weights}
			r.scratches = slices.Grow(r.scratches, kv)[:kv]
			r.ops.Parallel(kv, &r.selects)
			s.View.Weights[layer] = nil
		}
	}
	clear(r.weighs)
}

// weightsOf is the sums of a layer so far, [KV head][prompt token].
func weightsOf(v *quant.View, layer int) []float32 {
	if v.Weights == nil {
		v.Weights = make([][]float32, v.Geometry.Layers)
	}
	if v.Weights[layer] == nil {
		v.Weights[layer] = make([]float32, v.Geometry.KVHeads*v.PromptLen)
	}
	return v.Weights[layer]
}

// selection gives the important tokens of one layer the second plane, head by head.
type selection struct {
	runner  *Runner
	view    *quant.View
	layer   int
	weights []float32
}

var _ kernels.Task = (*selection)(nil)

// Do selects the tokens of one KV head.
func (s *selection) Do(head int) {
	v := s.view
	f, n := v.Geometry.Format, v.PromptLen
	lo, hi := f.Selectable(n)
	for lo < hi && v.ExactLayer(lo/f.PageTokens, s.layer) == nil {
		lo += f.PageTokens // reused: whoever wrote the page has chosen
	}
	if lo >= hi {
		return
	}
	sets := Important(s.weights[head*n+lo:head*n+hi], f.PageTokens, f.Important, f.MostImportant())
	for i, set := range sets {
		page := lo/f.PageTokens + i
		v.Geometry.At(s.layer).GiveSecond(v.CodedLayer(page, s.layer), v.ExactLayer(page, s.layer), head, set, &s.runner.scratches[head])
	}
}

// Important is the sets of tokens, page by page, that matter most by their weights
// (of whole pages): percent of all of them, at most most of any page. A weight
// counts for its neighbours too.
func Important(weights []float32, pageTokens, percent, most int) []uint64 {
	n := len(weights)
	spread := make([]float32, n)
	for i := range spread {
		spread[i] = slices.Max(weights[max(0, i-reach):min(n, i+reach+1)])
	}
	sorted := slices.Clone(spread)
	slices.Sort(sorted)
	count := (n*percent + 99) / 100
	least := sorted[n-count]
	// What weighs exactly as much as the least that gets in is taken in order.
	higher, _ := slices.BinarySearchFunc(sorted, least, func(x, least float32) int {
		if x > least {
			return 1
		}
		return -1
	})
	ties := count - (n - higher)
	sets := make([]uint64, n/pageTokens)
	for i, w := range spread {
		tie := w == least && ties > 0
		if tie {
			ties--
		}
		if w > least || tie {
			sets[i/pageTokens] |= 1 << (i % pageTokens)
		}
	}
	for p := range sets {
		sets[p] = heaviest(sets[p], spread[p*pageTokens:], most)
	}
	return sets
}

// heaviest leaves the most of a set that weigh most, of equals the first.
func heaviest(set uint64, weights []float32, most int) uint64 {
	if bits.OnesCount64(set) <= most {
		return set
	}
	var tokens []int
	for rest := set; rest != 0; rest &= rest - 1 {
		tokens = append(tokens, bits.TrailingZeros64(rest))
	}
	slices.SortStableFunc(tokens, func(a, b int) int {
		switch {
		case weights[a] > weights[b]:
			return -1
		case weights[a] < weights[b]:
			return 1
		}
		return 0
	})
	set = 0
	for _, t := range tokens[:most] {
		set |= 1 << t
	}
	return set
}
