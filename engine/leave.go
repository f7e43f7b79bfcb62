package engine

import (
	"slices"
	"time"

	"github.com/terse-llm/terse/sched"
)

// forget lets go of a request whose caller has left, whatever its state, and
// waits until the loop has done so: the caller may then reuse what the sink or
// the pages referred to.
func (e *Engine) forget(s *sequence) {
	e.leave(s)
	e.await(s.gone)
}

// leave has the loop let go of a request, in the middle of a step if one runs;
// s.gone closes when it has. Nothing reads or writes the request's pages but steps.
func (e *Engine) leave(s *sequence) {
	s.left.Store(true)
	e.leaveMu.Lock()
	e.leaving = append(e.leaving, s)
	e.leaveMu.Unlock()
	e.interrupt.Raised.Store(true)
	e.ring()
}

// ring wakes the loop where it waits.
func (e *Engine) ring() {
	select {
	case e.bell <- struct{}{}:
	default:
	}
}

// await waits for the loop, or for its end.
func (e *Engine) await(done chan struct{}) {
	select {
	case <-done:
	case <-e.closed:
	}
}

// hasLeft reports whether the caller of a row of the running step has gone.
func (e *Engine) hasLeft(row int) bool {
	s := e.seqs[e.plan.Rows[row].ID]
	return s == nil || s.left.Load()
}

// lookedUp is called by a step that has given up the rows of those who have left:
// they are let go of, and so are all that have no row in it.
func (e *Engine) lookedUp() {
	e.leaveMu.Lock()
	n := len(e.leaving)
	e.leaving = slices.DeleteFunc(e.leaving, func(s *sequence) bool {
		row := slices.IndexFunc(e.plan.Rows, func(w sched.Work) bool { return w.ID == s.id })
		if row >= 0 && e.seqs[s.id] == s && !e.batch.GivenUp(row) {
			return false // the step goes on with it
		}
		e.partWith(s, e.dropNow)
		return true
	})
	changed := n != len(e.leaving)
	e.leaveMu.Unlock()
	if changed {
		e.publishLoad()
	}
}

// partWithAll lets go of all who have left, between steps.
func (e *Engine) partWithAll() {
	e.leaveMu.Lock()
	defer e.leaveMu.Unlock()
	for _, s := range e.leaving {
		e.partWith(s, e.dropNext)
	}
	clear(e.leaving)
	e.leaving = e.leaving[:0]
}

// partWith forgets a sequence, by drop where it is there.
func (e *Engine) partWith(s *sequence, drop func(*sequence)) {
	defer close(s.gone)
	if e.seqs[s.id] == s {
		s.over = true
		drop(s)
		s.sink = nil
	}
}

// dropNow frees a sequence's pages in the middle of a step.
func (e *Engine) dropNow(s *sequence) {
	s.stopPlanes()
	s.endLendings()
	e.sched.Drop(s.id)
	delete(e.seqs, s.id)
}

// dropNext has the scheduler free a sequence's pages when it has booked the last
// step: what that has computed for another worker may be reused.
func (e *Engine) dropNext(s *sequence) {
	if s.mode == sched.ModePrefill {
		e.events = append(e.events, sched.Release{ID: s.id})
	}
	e.events = append(e.events, sched.Cancel{ID: s.id})
}

// stepTokens is how many tokens a step may have for it to take no longer than it
// should, by how fast prompts were computed lately; 0 for any.
func (e *Engine) stepTokens() int {
	rate := e.rate.value()
	if e.cfg.StepTime == 0 || rate == 0 {
		return 0
	}
	page := e.cfg.Runner.Geometry().Format.PageTokens
	return max(page, int(min(rate*e.cfg.StepTime.Seconds(), 1<<20))/page*page)
}

// StepTime is a Config.StepTime that lets a cancelled prompt hold its pages, and
// others up, for no longer than a tenth of a second.
const StepTime = 50 * time.Millisecond
