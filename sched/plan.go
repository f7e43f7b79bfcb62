package sched

import (
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
)

// Plan is what to do until the next Step, whose call says that it was done. Its
// slices and tables are valid until then.
type Plan struct {
	Rows      []Work // decode rows first, then chunks of prompts
	Admitted  []Admission
	Reserved  []Reservation // remote requests whose pages may be written from now on
	Preempted []ID          // lost their pages; they will be admitted again
	Rejected  []Rejection   // never admitted, gone
	Dropped   []ID          // finished, cancelled, failed or released: freed, gone
	Unhosted  []ID          // replicas whose pages went to others, or to their request
}

// Work is tokens of one sequence to run through the model. Their KV belongs at
// positions From, From+1, ... of Table, which holds all pages for them.
type Work struct {
	ID     ID
	Tokens []terse.Token
	From   int // position of Tokens[0]: the number of tokens already written
	// Sample says that the last token's logits pick the next token; the next
	// Step wants a Sampled (or Cancel) for it.
	Sample    bool
	AllLogits bool // every row's logits are wanted, to score the prompt (PromptScores)
	Table     *kvcache.Table
	PromptLen int // of the original prompt, also when generated tokens are recomputed
}

// Admission says that a request begins to be computed (again, after it was
// preempted).
type Admission struct {
	ID           ID
	CachedTokens int           // leading tokens whose KV is reused, not computed
	Replicated   int           // of them, those that came with a replica
	Waited       time.Duration // since it was added or preempted
}

// Reservation is a remote request with the pages its KV goes to.
type Reservation struct {
	ID    ID
	Table *kvcache.Table
	// HeldTokens is how many leading tokens have their KV already. Their pages
	// may be shared and must not be written.
	HeldTokens int
	Waited     time.Duration
}

// Rejection is a request that was refused, and why.
type Rejection struct {
	ID  ID
	Err *terse.Error
}
