package sched

import (
	"fmt"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
)

// replica is the KV of a request that another worker decodes: whole pages, for
// that request alone. Replicas take what memory nobody else wants: the oldest loses
// its pages as soon as somebody does.
type replica struct {
	id     ID
	table  kvcache.Table
	tokens []terse.Token // whose KV is there
}

func (s *Scheduler) replicaOf(id ID) int {
	return slices.IndexFunc(s.replicas, func(r *replica) bool { return r.id == id })
}

// Host makes room for the first n tokens, whole pages, of a request that another
// worker decodes, or for more of one that has some. The pages of the first held
// tokens are filled; the others may be written until Hosted, or until a Plan or
// Unhost says that they are gone. It reports false where the memory does not allow it.
func (s *Scheduler) Host(id ID, n int) (t *kvcache.Table, held int, ok bool) {
	i := s.replicaOf(id)
	if i < 0 {
		r := &replica{id: id}
		if need := s.cache.ReserveBytes(&r.table, n); need > s.headroom()-s.hosted() {
			return nil, 0, false
		}
		s.cache.Reserve(&r.table, n)
		s.replicas = append(s.replicas, r)
		return &r.table, 0, true
	}
	r := s.replicas[i]
	if need := s.cache.NeedBytes(&r.table, n, 0); need > s.headroom()-s.hosted() {
		return nil, 0, false
	}
	s.cache.Grow(&r.table, n, 0)
	return &r.table, len(r.tokens), true
}

// Hosted says that the pages of the tokens up to and with these, which follow the
// ones before, are filled.
func (s *Scheduler) Hosted(id ID, tokens []terse.Token) {
	if i := s.replicaOf(id); i >= 0 {
		r := s.replicas[i]
		r.tokens = append(r.tokens, tokens...)
		s.cache.Trim(&r.table, len(r.tokens), 0)
	}
}

// Unhost frees a replica.
func (s *Scheduler) Unhost(id ID) {
	if i := s.replicaOf(id); i >= 0 {
		s.cache.Free(&s.replicas[i].table)
		s.replicas = slices.Delete(s.replicas, i, i+1)
	}
}

// Replicas is the requests that replicas are here of, the oldest first.
func (s *Scheduler) Replicas() []ID {
	ids := make([]ID, len(s.replicas))
	for i, r := range s.replicas {
		ids[i] = r.id
	}
	return ids
}

// hosted is the bytes that replicas hold.
func (s *Scheduler) hosted() int64 {
	var n int64
	for _, r := range s.replicas {
		n += s.cache.Bytes(&r.table)
	}
	return n
}

// available is what can be allocated where replicas make way.
func (s *Scheduler) available() int64 { return s.cache.Available() + s.hosted() }

// makeWay frees replicas, the oldest first, until bytes can be allocated.
func (s *Scheduler) makeWay(bytes int64) {
	for len(s.replicas) > 0 && s.cache.Available() < bytes {
		s.plan.Unhosted = append(s.plan.Unhosted, s.replicas[0].id)
		s.Unhost(s.replicas[0].id)
	}
}

// takeOver gives q the pages of its replica, if that is of the same text.
func (s *Scheduler) takeOver(q *seq) bool {
	i := s.replicaOf(q.id)
	if i < 0 || q.mode != ModeLocal {
		return false
	}
	r := s.replicas[i]
	n := len(r.tokens)
	if n == 0 || n >= len(q.tokens) || !slices.Equal(r.tokens, q.tokens[:n]) {
		return false
	}
	peak := s.cache.PeakBytes(len(q.tokens), q.promptLen)
	if s.headroom()-s.cache.Bytes(&r.table) < peak-s.cache.Bytes(&r.table) {
		return false // it may still be admitted as others are, from what it finds of a prefix
	}
	q.table, q.peak, q.target = r.table, peak, len(q.tokens)
	q.written, q.next, q.scored = n, n, min(n, q.promptLen)
	s.replicas = slices.Delete(s.replicas, i, i+1)
	s.plan.Unhosted = append(s.plan.Unhosted, q.id)
	waited := s.activate(q, running)
	s.plan.Admitted = append(s.plan.Admitted, Admission{ID: q.id, CachedTokens: n, Replicated: n, Waited: waited})
	return true
}

// LendFrom is the first n, whole pages, for which Lend can give a running request's
// pages now or when so many tokens are computed; 0 for a request that is not there.
// What can be lent is as much as a worker needs that is to compute what follows with
// the same result.
func (s *Scheduler) LendFrom(id ID) int {
	q := s.byID[id]
	if q == nil || q.mode == ModePrefill {
		return 0
	}
	f := s.cache.Format()
	n := max(q.written/s.page, 1) * s.page
	if f.ExactPrefill || f.Selects() { // before that, more is needed of the prompt
		n = max(n, (q.promptLen+s.page-1)/s.page*s.page)
	}
	for !s.lendable(q, n) {
		n += s.page
	}
	return n
}

// lendable reports whether q has, or will have, what the query behind n tokens reads.
func (s *Scheduler) lendable(q *seq, n int) bool {
	f := s.cache.Format()
	lo, hi := f.ExactPages(n, 0)
	for page := lo; page < min(hi, q.table.Pages()); page++ {
		if q.table.Exact[page] == kvcache.None {
			return false
		}
	}
	return true
}

// Lend gives the pages of a request's first n tokens, which stay as they are until
// Return, and the tokens. It waits is what ok = false with a nil error says: they
// are not computed yet.
func (s *Scheduler) Lend(id ID, n int) (t *kvcache.Table, tokens []terse.Token, ok bool, err error) {
	q := s.byID[id]
	switch {
	case q == nil || q.mode == ModePrefill:
		return nil, nil, false, refuse(terse.CodeInvalid, "request %s is not decoded here", id)
	case n < s.page || n%s.page != 0 || n > s.cfg.MaxContext:
		return nil, nil, false, refuse(terse.CodeInvalid, "cannot lend %d tokens in pages of %d", n, s.page)
	case q.state != running || q.partial || q.written < n:
		return nil, nil, false, nil
	case !s.lendable(q, n):
		return nil, nil, false, refuse(terse.CodeTransfer, "request %s is beyond its first %d tokens already", id, n)
	case s.headroom() < 2*s.cache.PageBytes(kvcache.Exact):
		return nil, nil, false, refuse(terse.CodeOverloaded, "no memory to lend pages of request %s", id)
	}
	t = s.cache.Retain(&q.table, n/s.page)
	s.lent = append(s.lent, t)
	return t, slices.Clone(q.tokens[:n]), true, nil
}

// Return ends a Lend.
func (s *Scheduler) Return(t *kvcache.Table) {
	i := slices.Index(s.lent, t)
	if i < 0 {
		panic(fmt.Sprintf("BUG: a table of %d pages that was not lent comes back", t.Pages()))
	}
	s.lent = slices.Delete(s.lent, i, i+1)
	s.cache.Free(t)
}
