package sched

import (
	"cmp"
	"slices"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
)

type state uint8

const (
	waiting  state = iota // in the queue, without pages
	reserved              // remote, its KV is arriving
	running               // being computed
	held                  // ModePrefill, computed
	gone
)

// seq is one request. age orders requests by arrival for good: a preempted
// sequence keeps its place.
type seq struct {
	id    ID
	age   uint64
	mode  Mode
	state state
	since time.Time // when it came into the queue

	tokens    []terse.Token // prompt and generated
	promptLen int
	maxTokens int

	table   kvcache.Table
	written int  // tokens whose KV is in the table
	next    int  // and will be, once the last plan is carried out
	asked   bool // a token is being sampled
	partial bool // second planes of its prompt are to come

	target int   // tokens to be computed since it was admitted
	peak   int64 // bytes promised for that

	reuse  int  // pages of the prefix index it may use; anyPrefix = all it finds
	scores bool // PromptScores
	scored int  // prompt rows whose logits were asked for
}

const anyPrefix = -1

func newSeq(e Add, age uint64, now time.Time) *seq {
	q := &seq{
		id: e.ID, age: age, mode: e.Mode, since: now,
		// Prompts of several requests may share an array; generated tokens must not.
		tokens:    e.Prompt[:len(e.Prompt):len(e.Prompt)],
		promptLen: len(e.Prompt) - e.Resumed, maxTokens: e.MaxTokens,
		reuse: anyPrefix, scores: e.PromptScores,
	}
	if q.scores {
		q.reuse = 0
	}
	return q
}

func (q *seq) remaining() int { return len(q.tokens) - q.written }

func (q *seq) generated() int { return len(q.tokens) - q.promptLen }

// decodes reports whether q computes one token in the next step, which every
// such sequence does.
func (q *seq) decodes() bool { return q.state == running && q.remaining() == 1 }

// samples reports whether something is to be sampled after q's last token.
func (q *seq) samples() bool { return q.mode == ModePrefill || q.maxTokens > 0 }

// preemptible reports whether q can lose its pages: nobody else reads or writes
// them, and no token is on its way that was computed from them.
func (q *seq) preemptible() bool {
	return q.state == running && q.mode != ModePrefill && !q.asked
}

// mostWritten is the number of tokens that q's pages hold in the end. The last
// generated token is never computed.
func (q *seq) mostWritten() int {
	if q.mode == ModePrefill {
		return q.promptLen
	}
	return q.promptLen + max(0, q.maxTokens-1)
}

func byAge(a, b *seq) int { return cmp.Compare(a.age, b.age) }

// insert puts q into a list that is ordered by age.
func insert(list []*seq, q *seq) []*seq {
	i, _ := slices.BinarySearchFunc(list, q, byAge)
	return slices.Insert(list, i, q)
}
