package engine

import "github.com/terse-llm/terse/quant"

// receive has a prompt whose pages are reserved taken over as it comes, where its
// pages are of another memory than it comes to.
func (e *Engine) receive(s *sequence) {
	s.reception, s.view.Came = e.cfg.Runner.Receive(s.view), nil
	if s.view.ExactIDs != nil {
		s.view.Came = func(pieces []quant.Piece) {
			e.cameMu.Lock()
			e.came[s] = append(e.came[s], pieces...)
			e.cameMu.Unlock()
			e.ring()
		}
	}
}

// takeAll takes over what has come, between steps: beside the next one.
func (e *Engine) takeAll() {
	var came map[*sequence][]quant.Piece
	e.cameMu.Lock()
	if len(e.came) > 0 {
		came, e.came = e.came, make(map[*sequence][]quant.Piece)
	}
	e.cameMu.Unlock()
	for s, pieces := range came {
		if s.over || s.reception == nil || e.seqs[s.id] != s {
			continue // its pages are, or will be, others'
		}
		if err := s.reception.Take(pieces); err != nil { // what was not is taken in the end
			e.cfg.Logger.Warn("what has come of a prompt could not be taken over yet", "request", s.req.ID, "error", err)
		}
	}
}
