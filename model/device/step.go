package device

import (
	"math"
	"slices"

	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// step is how a batch lies on the device: single rows first, in the order of the
// batch, then the rows of prompts. Row i of a table belongs to the i-th segment in
// this order, which for single rows is the row of the activations too.
type step struct {
	singles  int
	segments []attention.Segment // in this order, Row counted in it
	prompts  []attention.Segment // those of several rows
	rows     int
	wanted   int
	drawn    bool       // some of the wanted rows' tokens are
	plan     *cuda.Plan // of the single rows' attention; nil for none
	lengths  []int
	floors   []int
	order    []int // of each row of the batch, its row here
	staged   []stagedPage
	watched  []watched
}

// lay arranges a batch, fills the inputs and plans.
func (s *step) lay(r *Runner, b *model.Batch) {
	s.segments, s.lengths, s.floors, s.staged = s.segments[:0], s.lengths[:0], s.floors[:0], s.staged[:0]
	s.watched = s.watched[:0]
	s.order = slices.Grow(s.order[:0], b.Rows())[:b.Rows()]
	s.rows, s.plan, s.wanted = 0, nil, len(b.Logits)
	for _, single := range []bool{true, false} {
		for _, seg := range b.Segments {
			if seg.Rows == 0 || r.single(seg) != single {
				continue
			}
			for i := range seg.Rows {
				s.order[seg.Row+i] = s.rows + i
				r.in.tokens[s.rows+i], r.in.positions[s.rows+i] = b.Tokens[seg.Row+i], int32(seg.Pos+i)
			}
			seg.Row = s.rows
			s.segments = append(s.segments, seg)
			s.rows += seg.Rows
		}
		if single {
			s.singles = s.rows
		}
	}
	s.prompts = s.segments[s.singles:]
	s.drawn = false
	for i, row := range b.Logits {
		r.in.wanted[i] = int32(s.order[row])
		r.in.draws[i] = drawOf(b.Picks[i])
		s.drawn = s.drawn || r.in.draws[i].Draws != 0
	}
	for i, seg := range s.segments {
		r.in.table(r.pages, i, seg.View)
		floor := exactFrom(r, seg)
		s.floors = append(s.floors, floor)
		if i < s.singles {
			s.lengths = append(s.lengths, seg.Pos+1)
		}
		if lo, hi := seg.Watched(); lo < hi {
			s.watched = append(s.watched, watched{table: i})
		}
		if len(seg.View.Exact) > 0 {
			s.staged = appendStaged(s.staged, r, i, seg)
		}
	}
	if s.singles > 0 && r.kernels.decoder != nil {
		s.plan = r.kernels.decoder.PlanFrom(r.dev.Info, s.lengths, s.floors[:s.singles])
	}
}

// drawOf is how a token is drawn; the most likely one is not.
func drawOf(p model.Pick) cuda.Draw {
	if !p.Token || p.Temperature == 0 {
		return cuda.Draw{}
	}
	return cuda.Draw{U: p.U, Scale: float32(1 / float64(p.Temperature)), TopP: p.TopP, MinP: p.MinP, TopK: int32(min(p.TopK, math.MaxInt32)), Draws: 1}
}

// single reports whether a segment goes with those of single rows. Prompts that are
// read exactly, though codes are there, do not.
func (r *Runner) single(seg attention.Segment) bool {
	return seg.Rows == 1 && !(r.geometry.Format.ExactPrefill && seg.Pos < seg.View.PromptLen)
}

// exactFrom is the token from which on a sequence has exact pages, beyond the
// sinks.
func exactFrom(r *Runner, seg attention.Segment) int {
	f, ids := r.geometry.Format, seg.View.ExactIDs
	if !f.Coded() {
		return 0
	}
	page := (seg.Pos + seg.Rows - 1) / f.PageTokens
	for page >= f.SinkPages() && ids[page] >= 0 {
		page--
	}
	if page < f.SinkPages() {
		return 0
	}
	return (page + 1) * f.PageTokens
}

// stagedPage is a page of which the step brings something to the host: a form of
// it, all layers.
type stagedPage struct {
	kind  kvcache.Kind
	table int // row of the tables
	page  int
	host  []byte
}

// appendStaged lists the pages that seg has written, and those before that the
// host does not have yet, as far as a hand-over moves them. hq codes whole pages,
// the hack layouts every token.
func appendStaged(to []stagedPage, r *Runner, row int, seg attention.Segment) []stagedPage {
	f, end := r.geometry.Format, seg.Pos+seg.Rows
	from := min(seg.View.Staged, seg.Pos) / f.PageTokens
	for _, p := range f.Handover(seg.View.PromptLen) {
		if p.Page < from || p.Page*f.PageTokens >= end || p.Coded && f.Family == quant.FamilyHQ && (p.Page+1)*f.PageTokens > end {
			continue
		}
		s := stagedPage{kvcache.Exact, row, p.Page, seg.View.Exact[p.Page]}
		if p.Coded {
			s.kind, s.host = kvcache.Coded, seg.View.Coded[p.Page]
		}
		if s.host != nil && (len(to) == 0 || to[len(to)-1].page != s.page || to[len(to)-1].kind != s.kind || to[len(to)-1].table != row) {
			to = append(to, s)
		}
	}
	return to
}
