package engine

import (
	"math"
	"slices"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/sched"
)

// awaitPlanes marks the pages whose second planes are still to come, at the start
// of decoding from a prompt of n tokens.
func (s *sequence) awaitPlanes(n int) {
	if s.planes == nil {
		return
	}
	s.timing.Awaited = s.planes.Missing()
	s.view.TopOnly = marks(s.timing.Awaited, n/s.view.Geometry.Format.PageTokens+1)
	if len(s.timing.Awaited) == 0 {
		s.stopPlanes()
	}
}

// marks is a list of n pages of which some are marked; others than those n are not.
func marks(pages []int, n int) []bool {
	top := make([]bool, n)
	for _, page := range pages {
		if page >= 0 && page < n {
			top[page] = true
		}
	}
	return top
}

// adoptPlanes has the queries from position pos on, the first of a page, read the
// second planes that have come, and writes down which. So what a token was
// computed on is known, and does not change within a page.
func (e *Engine) adoptPlanes(s *sequence, pos int) {
	if s.planes == nil {
		return
	}
	if pos%s.view.Geometry.Format.PageTokens != 0 {
		s.timing.TopTokens++
		return
	}
	missing := s.planes.Missing()
	var came []int
	for page, waits := range s.view.TopOnly {
		if _, still := slices.BinarySearch(missing, page); waits && !still {
			came = append(came, page)
			s.view.TopOnly[page] = false
		}
	}
	if len(came) > 0 {
		s.timing.Adopted = append(s.timing.Adopted, terse.Adoption{At: pos, Pages: came})
		s.tell = true
	}
	if len(missing) > 0 {
		s.timing.TopTokens++
		return
	}
	s.timing.Adoption = time.Since(s.firstToken)
	s.stopPlanes()
	e.events = append(e.events, sched.KVWhole{ID: s.id})
}

// stopPlanes gives up second planes that have not come: the pages may go to others
// when it has returned.
func (s *sequence) stopPlanes() {
	if s.planes == nil {
		return
	}
	s.planes.Stop()
	s.countPlanes()
	s.planes, s.view.TopOnly = nil, nil
}

// countPlanes books the second planes that have come so far.
func (s *sequence) countPlanes() {
	if s.planes == nil {
		return
	}
	s.timing.CountSecond(s.planes.Bytes())
}

// follow has what the sequence computes here follow a record, and read whatever
// planes that leaves out from the first page on that begins at pos or behind it.
func (s *sequence) follow(r terse.PlaneRecord, pos, page int) {
	if rest := r.Rest(); len(rest) > 0 && pos < math.MaxInt {
		at := (pos + page - 1) / page * page
		r.Adopted = append(slices.Clone(r.Adopted), terse.Adoption{At: at, Pages: rest})
	}
	s.record, s.timing.PlaneRecord, s.timing.TopTokens = &r, r, 0
}

// recompute prepares a sequence that lost its pages: its tokens are computed again
// on the planes that they were computed on, and what comes on all.
func (s *sequence) recompute(page int) {
	s.stopPlanes()
	if len(s.timing.Awaited) == 0 {
		return
	}
	s.follow(s.timing.PlaneRecord, len(s.req.Prompt)-s.req.Resumed+s.generated-1, page)
}

// topOnly is the pages that, by the record, the query at a position reads by their
// top planes, and the next position at which that may be otherwise. Queries of the
// prompt read all planes.
func (s *sequence) topOnly(pos, promptLen, pages int) (top []bool, until int) {
	if pos < promptLen {
		return nil, promptLen
	}
	top, until = marks(s.record.Awaited, pages), math.MaxInt
	for _, a := range s.record.Adopted {
		if a.At > pos {
			until = min(until, a.At)
			continue
		}
		for _, page := range a.Pages {
			if page >= 0 && page < pages {
				top[page] = false
			}
		}
	}
	if !slices.Contains(top, true) {
		top = nil
	}
	return top, until
}

// append adds a sequence's rows to the batch, in as many pieces as the record of
// what they read, where it follows one, makes of them.
func (e *Engine) append(s *sequence, w sched.Work) {
	e.look(s, w)
	if s.record == nil || s.view.CodedIDs != nil { // GPUs read all planes
		e.batch.Append(w.Tokens, s.view, w.From)
		return
	}
	for from, rest := w.From, w.Tokens; len(rest) > 0; {
		top, until := s.topOnly(from, w.PromptLen, len(s.view.Coded))
		n, view := min(len(rest), until-from), s.view
		if top != nil {
			other := *s.view
			other.TopOnly, view = top, &other
			s.timing.TopTokens += n
		}
		if from == w.From {
			e.batch.Append(rest[:n], view, from)
		} else {
			e.batch.AppendMore(rest[:n], view, from)
		}
		from, rest = from+n, rest[n:]
	}
}
