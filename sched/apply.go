package sched

import (
	"fmt"
	"slices"

	"github.com/terse-llm/terse"
)

func (s *Scheduler) apply(e Event) {
	switch e := e.(type) {
	case Add:
		s.add(e)
	case Cancel:
		s.drop(s.byID[e.ID])
	case *Sampled:
		s.sampled(e)
	case KVReady:
		s.ready(e)
	case KVWhole:
		if q := s.byID[e.ID]; q != nil {
			q.partial = false
		}
	case KVFailed:
		s.drop(s.byID[e.ID])
	case Release:
		s.finish(s.byID[e.ID])
	default:
		panic(fmt.Sprintf("BUG: event %T", e))
	}
}

func (s *Scheduler) add(e Add) {
	if err := s.refusal(e); err != nil {
		s.plan.Rejected = append(s.plan.Rejected, Rejection{ID: e.ID, Err: err})
		return
	}
	s.ages++
	q := newSeq(e, s.ages, s.now)
	if e.Resumed > 0 && s.coded {
		q.reuse = e.Reuse / s.page
	}
	if need := s.cache.PeakBytes(q.mostWritten(), q.promptLen); need > s.cache.Budget() {
		s.plan.Rejected = append(s.plan.Rejected, Rejection{ID: e.ID, Err: refuse(terse.CodeKVMemory,
			"the request needs %d bytes of KV cache for %d tokens, the worker has %d: shorten it or raise the KV memory",
			need, q.mostWritten(), s.cache.Budget())})
		return
	}
	s.byID[q.id] = q
	s.queue = append(s.queue, q)
	s.fresh++
}

// refusal says why a request can never be computed, whatever the cache.
func (s *Scheduler) refusal(e Add) *terse.Error {
	switch room := s.cfg.MaxContext - (len(e.Prompt) - e.Resumed); {
	case s.byID[e.ID] != nil:
		return refuse(terse.CodeInvalid, "a request with id %q is there already", e.ID)
	case len(e.Prompt) == 0:
		return refuse(terse.CodeInvalid, "the prompt has no tokens: give at least one")
	case e.Resumed < 0 || e.Resumed >= len(e.Prompt) || e.Resumed > 0 && (e.Resumed >= e.MaxTokens || e.Mode != ModeLocal):
		return refuse(terse.CodeInvalid, "cannot go on behind %d generated tokens of %d, with %d to generate in all", e.Resumed, len(e.Prompt), e.MaxTokens)
	case e.MaxTokens < 0:
		return refuse(terse.CodeInvalid, "cannot generate %d tokens", e.MaxTokens)
	case e.MaxTokens > room:
		return refuse(terse.CodeContextLength, "a prompt of %d tokens and %d to generate do not fit the context of %d: shorten the prompt or ask for fewer",
			len(e.Prompt), e.MaxTokens, s.cfg.MaxContext)
	}
	return nil
}

func refuse(c terse.Code, format string, args ...any) *terse.Error {
	return &terse.Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// refuseExcess refuses the latest requests that were added in this step, could
// not be admitted and find the queue full.
func (s *Scheduler) refuseExcess() {
	for ; s.fresh > 0 && len(s.queue) > s.cfg.MaxWaiting; s.fresh-- {
		last := len(s.queue) - 1
		q := s.queue[last]
		s.queue = s.queue[:last]
		delete(s.byID, q.id)
		s.plan.Rejected = append(s.plan.Rejected, Rejection{ID: q.id, Err: refuse(terse.CodeOverloaded,
			"%d requests are waiting already: try again later", s.cfg.MaxWaiting)})
	}
	s.fresh = 0
}

func (s *Scheduler) sampled(e *Sampled) {
	q := s.byID[e.ID]
	if q == nil {
		return
	}
	if !q.asked {
		panic(fmt.Sprintf("BUG: a token for %q, which has no row to sample", e.ID))
	}
	q.asked = false
	q.tokens = append(q.tokens, e.Token)
	switch {
	case q.mode == ModePrefill:
		q.state = held
	case e.Finished || q.generated() >= q.maxTokens:
		s.finish(q)
	}
}

func (s *Scheduler) ready(e KVReady) {
	q := s.byID[e.ID]
	if q == nil {
		return
	}
	if q.state != reserved {
		panic(fmt.Sprintf("BUG: KV for %q, which has no reserved pages", e.ID))
	}
	q.state = running
	q.written, q.next, q.scored = q.promptLen, q.promptLen, q.promptLen
	q.tokens = append(q.tokens, e.First)
	q.partial = e.Partial
	s.offer(q)
	if q.generated() >= q.maxTokens {
		s.drop(q)
	}
}

// finish drops a sequence whose rows were computed: its pages can be reused.
func (s *Scheduler) finish(q *seq) {
	if q == nil {
		return
	}
	if q.state == running || q.state == held {
		s.offer(q)
	}
	s.drop(q)
}

// Drop drops a request between two Steps: its pages are free at once. It may be in
// the last plan; its rows are then taken not to be computed.
func (s *Scheduler) Drop(id ID) { s.drop(s.byID[id]) }

// drop frees a sequence and forgets it. The lists of active sequences let go of
// it in compact.
func (s *Scheduler) drop(q *seq) {
	if q == nil {
		return
	}
	if q.state == waiting {
		i := slices.Index(s.queue, q)
		if i >= len(s.queue)-s.fresh {
			s.fresh--
		}
		s.queue = slices.Delete(s.queue, i, i+1)
	}
	q.state = gone
	s.cache.Free(&q.table)
	delete(s.byID, q.id)
	s.plan.Dropped = append(s.plan.Dropped, q.id)
}
