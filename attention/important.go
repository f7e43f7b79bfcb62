package attention

import (
	"slices"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// lastQueries is how many of a prompt's last queries say which of its tokens
// matter to what follows.
const lastQueries = 64

// Watched is the rows [lo, hi) of the segment, counted from its first, whose
// attention says which tokens of the prompt matter.
func (s *Segment) Watched() (lo, hi int) {
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
		if lo, hi := segs[i].Watched(); lo < hi {
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
		lo, hi := s.Watched()
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
	sets := f.ImportantTokens(s.weights[head*n+lo : head*n+hi])
	for i, set := range sets {
		page := lo/f.PageTokens + i
		v.Geometry.At(s.layer).GiveSecond(v.CodedLayer(page, s.layer), v.ExactLayer(page, s.layer), head, set, &s.runner.scratches[head])
	}
}
