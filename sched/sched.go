package sched

import (
	"time"

	"github.com/terse-llm/terse/kvcache"
)

// Config bounds a scheduler. Zero fields get the default.
type Config struct {
	Cache      *kvcache.Cache // required
	MaxSeqs    int            // sequences in flight at most (64)
	StepTokens int            // tokens of one step (512); decode rows come first, and at least a page is left for prompts
	MaxWaiting int            // requests that may wait to be admitted (1024)
	MaxContext int            // prompt and generated tokens of one request at most; required
}

// Scheduler holds the state between steps. It belongs to one goroutine.
type Scheduler struct{}

// New makes a scheduler over an empty cache.
func New(c Config) *Scheduler { return &Scheduler{} }

// Step applies events, in order, and plans what to compute next. It takes it
// that the last plan was carried out. now only measures how long requests wait.
func (s *Scheduler) Step(events []Event, now time.Time) Plan { return Plan{} }

// Stats counts requests by state.
type Stats struct {
	Waiting  int // to be admitted
	Running  int // being computed
	Reserved int // remote, waiting for their KV
	Held     int // ModePrefill, computed, waiting for Release
}

// Stats counts requests by state.
func (s *Scheduler) Stats() Stats { return Stats{} }

// Idle reports whether there is no request at all.
func (s *Scheduler) Idle() bool { return true }

// Check verifies the scheduler's and the cache's books, for tests.
func (s *Scheduler) Check() error { return nil }
