package sched

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/terse-llm/terse/kvcache"
)

// StepTokens is how many tokens a step takes by default.
const StepTokens = 512

// Config bounds a scheduler. Zero fields get the default.
type Config struct {
	Cache      *kvcache.Cache // required
	MaxSeqs    int            // sequences in flight at most (64), held ones not counted
	StepTokens int            // tokens of one step (StepTokens); decode rows come first, and at least a page is left for prompts
	MaxWaiting int            // requests that may wait to be admitted (1024)
	MaxContext int            // prompt and generated tokens of one request at most; required
}

// Scheduler holds the state between steps. It belongs to one goroutine.
type Scheduler struct {
	cfg   Config
	cache *kvcache.Cache
	page  int // tokens
	coded bool
	// The format chooses at the end of a prompt which of its tokens matter: until
	// then its pages are not final.
	selects bool

	byID   map[ID]*seq
	queue  []*seq // waiting, oldest first
	active []*seq // all others, oldest first
	ran    []*seq // those with a row in the last plan
	ages   uint64

	plan   Plan
	chunks []Work // of the plan being made; they follow its decode rows
	now    time.Time
	limit  int // of a step's tokens; 0 = cfg.StepTokens
	fresh  int // requests added in this step that wait, at the queue's end

	replicas []*replica       // oldest first
	lent     []*kvcache.Table // to those who make replicas of them

	blocked   *seq  // head of the queue that did not fit ...
	blockedAt int64 // ... in this many bytes
}

// New makes a scheduler over an empty cache.
func New(c Config) *Scheduler {
	if c.Cache == nil || c.MaxContext < 1 {
		panic(fmt.Sprintf("BUG: a scheduler with cache %v and a context of %d", c.Cache, c.MaxContext))
	}
	c.MaxSeqs = cmp.Or(c.MaxSeqs, 64)
	c.StepTokens = cmp.Or(c.StepTokens, StepTokens)
	c.MaxWaiting = cmp.Or(c.MaxWaiting, 1024)
	return &Scheduler{
		cfg: c, cache: c.Cache, byID: make(map[ID]*seq),
		page: c.Cache.Format().PageTokens, coded: c.Cache.Format().Coded(), selects: c.Cache.Format().Selects(),
	}
}

// Step applies events, in order, and plans what to compute next. It takes it
// that the last plan was carried out. now only measures how long requests wait.
func (s *Scheduler) Step(events []Event, now time.Time) Plan {
	s.now = now
	s.plan = Plan{Rows: s.plan.Rows[:0]}
	s.chunks = s.chunks[:0]
	s.settle()
	for _, e := range events {
		s.apply(e)
	}
	s.commit()
	budget := s.runActive()
	if len(s.plan.Preempted) == 0 {
		s.admit(budget)
	}
	s.refuseExcess()
	s.plan.Rows = append(s.plan.Rows, s.chunks...)
	return s.plan
}

// Limit makes a step have at most tokens tokens, and no more than the configured
// StepTokens, from the next on; 0 = those.
func (s *Scheduler) Limit(tokens int) { s.limit = tokens }

// settle books the last plan as carried out.
func (s *Scheduler) settle() {
	for _, q := range s.ran {
		q.written = q.next
		q.scored = max(q.scored, min(q.written, q.promptLen))
		s.cache.Trim(&q.table, q.written, q.promptLen)
		if q.written >= q.target {
			q.peak = 0
		}
	}
}

// commit offers the pages of the last plan for reuse. It runs after the events,
// for a cancelled sequence's rows may not have been computed.
func (s *Scheduler) commit() {
	for _, q := range s.ran {
		if q.state == gone {
			continue
		}
		s.offer(q)
		if q.remaining() == 0 && !q.samples() {
			s.drop(q)
		}
	}
	s.ran = s.ran[:0]
	s.compact()
}

// offer lets other sequences reuse q's written pages, where nothing will be written
// to them any more.
func (s *Scheduler) offer(q *seq) {
	if !q.partial && (!s.selects || q.written >= q.promptLen) {
		s.cache.Commit(&q.table, q.tokens, q.written)
	}
}

// compact removes from the active sequences what is not active any more.
func (s *Scheduler) compact() {
	s.active = slices.DeleteFunc(s.active, func(q *seq) bool { return q.state == gone || q.state == waiting })
}

// Stats counts requests by state.
type Stats struct {
	Waiting  int // to be admitted
	Running  int // being computed
	Reserved int // remote, waiting for their KV
	Held     int // ModePrefill, computed, waiting for Release
}

// Stats counts requests by state.
func (s *Scheduler) Stats() Stats {
	st := Stats{Waiting: len(s.queue)}
	for _, q := range s.active {
		switch q.state {
		case running:
			st.Running++
		case reserved:
			st.Reserved++
		case held:
			st.Held++
		}
	}
	return st
}

// Idle reports whether there is no request at all.
func (s *Scheduler) Idle() bool { return len(s.byID) == 0 }

// Check verifies the scheduler's and the cache's books, for tests: ages are in
// order, what was promised is available, every page belongs to a live sequence.
func (s *Scheduler) Check() error {
	all := slices.Concat(s.active, s.queue)
	if !slices.IsSortedFunc(s.active, byAge) || !slices.IsSortedFunc(s.queue, byAge) {
		return fmt.Errorf("cannot trust the scheduler: sequences are out of order")
	}
	if len(all) != len(s.byID) {
		return fmt.Errorf("cannot trust the scheduler: %d sequences in lists, %d by id", len(all), len(s.byID))
	}
	var live []*kvcache.Table
	for _, q := range all {
		live = append(live, &q.table)
	}
	for _, r := range s.replicas {
		live = append(live, &r.table)
	}
	live = append(live, s.lent...)
	if promised := s.promised(nil); promised > s.available() && len(s.lent) == 0 { // what is lent comes back
		return fmt.Errorf("cannot trust the scheduler: %d bytes promised, %d available", promised, s.available())
	}
	return s.cache.Check(live...)
}
