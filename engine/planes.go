package engine

import (
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/sched"
)

// awaitPlanes marks the pages whose second planes are still to come, at the start
// of decoding from a prompt of n tokens.
func (s *sequence) awaitPlanes(n int) {
	if s.planes == nil {
		return
	}
	s.view.TopOnly = make([]bool, n/s.view.Geometry.Format.PageTokens+1)
	for _, page := range s.planes.Missing() {
		s.view.TopOnly[page] = true
	}
}

// adoptPlanes has the queries from position pos on, the first of a page, read the
// second planes that have come, and writes down which. So what a token was
// computed on is known, and does not change within a page.
func (e *Engine) adoptPlanes(s *sequence, pos int) {
	if s.planes == nil || pos%s.view.Geometry.Format.PageTokens != 0 {
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
	}
	if len(missing) == 0 {
		s.stopPlanes()
		e.events = append(e.events, sched.KVWhole{ID: s.id})
	}
}

// stopPlanes gives up second planes that have not come: the pages may go to others
// when it has returned.
func (s *sequence) stopPlanes() {
	if s.planes == nil {
		return
	}
	s.planes.Stop()
	s.planes, s.view.TopOnly = nil, nil
}
