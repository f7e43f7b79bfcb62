package sched

import (
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
)

// admit lets waiting sequences in, first come, first served, and gives budget
// tokens to their prompts. The first that does not fit keeps all others out:
// otherwise short requests would starve a long one.
func (s *Scheduler) admit(budget int) {
	inFlight := s.inFlight()
	for ; len(s.queue) > 0 && inFlight < s.cfg.MaxSeqs; inFlight++ {
		q := s.queue[0]
		if q.mode == ModeRemote {
			if !s.reserve(q) {
				return
			}
			continue
		}
		if budget < min(s.page, len(q.tokens)) || !s.takeOver(q) && !s.enter(q) {
			return
		}
		budget -= s.chunk(q, budget)
	}
}

// inFlight counts the sequences that are or soon will be in a step.
func (s *Scheduler) inFlight() int {
	n := 0
	for _, q := range s.active {
		if q.state != held {
			n++
		}
	}
	return n
}

// headroom is what a new sequence may take: what is available, less what was
// promised, less a page for each sequence that grows, so that a new one does not
// make the next step preempt.
func (s *Scheduler) headroom() int64 {
	growth := s.cache.PageBytes(kvcache.Exact)
	if s.coded {
		growth += s.cache.PageBytes(kvcache.Coded)
	}
	room := s.available() - s.promised(nil)
	for _, q := range s.active {
		if q.mode != ModePrefill {
			room -= growth
		}
	}
	return room
}

// enter begins to compute the head of the queue, from the prefix it finds on, if
// all of its tokens fit.
func (s *Scheduler) enter(q *seq) bool {
	room := s.headroom()
	if s.blocked == q && room <= s.blockedAt {
		return false // looking up a long prefix in vain, every step, is not free
	}
	pages, table := s.cache.Match(s.reusable(q))
	q.table = table
	q.peak = s.cache.PeakBytes(len(q.tokens), q.promptLen)
	if s.headroom() < q.peak-s.cache.Bytes(&q.table) {
		s.cache.Free(&q.table)
		s.blocked, s.blockedAt, q.peak = q, room, 0
		return false
	}
	if q.reuse == anyPrefix {
		q.reuse = s.firstReuse(pages)
	}
	q.target = len(q.tokens)
	q.written, q.next = pages*s.page, pages*s.page
	waited := s.activate(q, running)
	s.plan.Admitted = append(s.plan.Admitted, Admission{ID: q.id, CachedTokens: q.written, Waited: waited})
	return true
}

// reusable is the part of q's tokens that may be looked up in the prefix index.
// A prompt that crosses between workers has an exact tail, which pages reused as
// codes have not got: the one cannot hand it over, the other must be given it.
func (s *Scheduler) reusable(q *seq) []terse.Token {
	pages := q.reuse
	if q.mode != ModeLocal && s.coded {
		tail, _ := s.cache.Format().ExactPages(q.promptLen, q.promptLen)
		if pages == anyPrefix || pages > tail {
			pages = tail
		}
	}
	if pages == anyPrefix {
		return q.tokens
	}
	return q.tokens[:min(len(q.tokens), pages*s.page+1)]
}

// reserve gives the head of the queue the pages that its KV will be written to,
// behind those of its prefix that are there already.
func (s *Scheduler) reserve(q *seq) bool {
	room := s.headroom()
	if s.blocked == q && room <= s.blockedAt {
		return false
	}
	pages, table := s.cache.Match(s.reusable(q))
	q.table = table
	if s.headroom() < s.cache.ReserveBytes(&q.table, q.promptLen) {
		s.cache.Free(&q.table)
		s.blocked, s.blockedAt = q, room
		return false
	}
	s.makeWay(s.cache.ReserveBytes(&q.table, q.promptLen))
	if !s.cache.Reserve(&q.table, q.promptLen) {
		panic("BUG: the KV cache refuses what it had available")
	}
	waited := s.activate(q, reserved)
	s.plan.Reserved = append(s.plan.Reserved, Reservation{ID: q.id, Table: &q.table, HeldTokens: pages * s.page, Waited: waited})
	return true
}

// activate takes the head of the queue into flight and says how long it waited.
func (s *Scheduler) activate(q *seq, to state) time.Duration {
	s.queue = s.queue[1:]
	s.fresh = min(s.fresh, len(s.queue))
	q.state = to
	s.active = insert(s.active, q)
	return s.now.Sub(q.since)
}
