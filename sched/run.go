package sched

// runActive gives every sequence in flight its row or chunk, oldest first, and
// returns the tokens left for new prompts. Pages are taken from younger
// sequences only, whose turn is still to come: no row of this plan loses its
// pages.
func (s *Scheduler) runActive() (budget int) {
	budget = s.promptBudget()
	for _, q := range s.active {
		switch {
		case q.decodes():
			if s.secure(q, len(q.tokens)) {
				s.plan.Rows = append(s.plan.Rows, s.work(q, len(q.tokens)))
			}
		case q.state == running && q.remaining() > 0:
			budget -= s.chunk(q, budget)
		}
	}
	s.compact()
	return budget
}

// promptBudget is what the decode rows leave of the step, but at least a page:
// neither kind of work may stop the other.
func (s *Scheduler) promptBudget() int {
	budget := s.cfg.StepTokens
	if s.limit > 0 {
		budget = min(budget, s.limit)
	}
	for _, q := range s.active {
		if q.decodes() {
			budget--
		}
	}
	return max(s.page, budget)
}

// chunk plans a part of q's prompt and returns its length, 0 if budget does not
// reach to the end of a page.
func (s *Scheduler) chunk(q *seq, budget int) int {
	end := s.chunkEnd(q, budget)
	if end == q.written {
		return 0
	}
	// A shorter chunk is better than another sequence's loss.
	free := s.freeFor(q)
	for end-q.written > s.page && s.cache.NeedBytes(&q.table, end, q.promptLen) > free {
		end = (end - 1) / s.page * s.page
	}
	if !s.secure(q, end) {
		return 0
	}
	s.chunks = append(s.chunks, s.work(q, end))
	return end - q.written
}

// chunkEnd is where a chunk of at most budget tokens ends: with the prompt or
// with a page, so that pages are coded, sent and shared whole.
func (s *Scheduler) chunkEnd(q *seq, budget int) int {
	end := min(len(q.tokens), q.written+budget)
	if q.scores && q.written < q.scored {
		// Recomputed rows whose logits were delivered stay apart from new ones.
		end = min(end, q.scored)
	}
	if s.selects && q.written < q.promptLen {
		end = min(end, q.promptLen) // what follows the prompt reads what was chosen at its end
	}
	if end == len(q.tokens) || end == q.scored || s.selects && end == q.promptLen {
		return end
	}
	return max(q.written, end/s.page*s.page)
}

// work is q's row up to token end, whose pages it holds.
func (s *Scheduler) work(q *seq, end int) Work {
	w := Work{
		ID: q.id, Tokens: q.tokens[q.written:end:end], From: q.written,
		Sample:    end == len(q.tokens) && q.samples(),
		AllLogits: q.scores && q.written < q.promptLen && q.written >= q.scored,
		Table:     &q.table, PromptLen: q.promptLen,
	}
	q.next, q.asked = end, w.Sample
	s.ran = append(s.ran, q)
	return w
}

// secure makes q hold the pages for its first n tokens, taking them from
// younger sequences if it must. It reports false if q has to wait.
func (s *Scheduler) secure(q *seq, n int) bool {
	need := s.cache.NeedBytes(&q.table, n, q.promptLen)
	for need > 0 && need > s.freeFor(q) {
		if !s.preemptYounger(q) {
			return false
		}
	}
	s.makeWay(need)
	if !s.cache.Grow(&q.table, n, q.promptLen) {
		panic("BUG: the KV cache refuses what it had available")
	}
	return true
}

// freeFor is what q may allocate without touching what others were promised.
func (s *Scheduler) freeFor(q *seq) int64 { return s.available() - s.promised(q) }

// promised is what admitted prompts, q's apart, may still allocate.
func (s *Scheduler) promised(q *seq) int64 {
	var sum int64
	for _, p := range s.active {
		if p != q && p.peak > 0 && p.state == running {
			sum += max(0, p.peak-s.cache.Bytes(&p.table))
		}
	}
	return sum
}

func (s *Scheduler) preemptYounger(q *seq) bool {
	for i := len(s.active) - 1; s.active[i].age > q.age; i-- {
		if s.active[i].preemptible() {
			s.preempt(s.active[i])
			return true
		}
	}
	return false
}

// preempt takes a sequence's pages and puts it back into the queue at its age:
// in front of all that were never admitted.
func (s *Scheduler) preempt(q *seq) {
	s.cache.Free(&q.table)
	if q.mode == ModeRemote {
		q.mode = ModeLocal // nobody will send its KV again
		q.reuse = s.firstReuse(0)
	}
	q.state, q.since = waiting, s.now
	q.written, q.next, q.partial = 0, 0, false
	s.queue = insert(s.queue, q)
	s.plan.Preempted = append(s.plan.Preempted, q.id)
}

// firstReuse is how many prefix pages a sequence may reuse when it comes back,
// having reused pages the first time. Of coded formats not more: reused pages
// are read as codes where computed ones are read exactly, and what it generates
// must not depend on whether it was interrupted.
func (s *Scheduler) firstReuse(pages int) int {
	if s.coded {
		return pages
	}
	return anyPrefix
}
