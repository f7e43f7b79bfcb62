package sched

import "github.com/terse-llm/terse"

// ID names a request; no two live ones may have the same.
type ID string

// Mode says which part of a request this engine does.
type Mode uint8

// The modes.
const (
	ModeLocal   Mode = iota // compute the prompt and generate
	ModePrefill             // compute the prompt, sample one token, keep the pages until Release
	ModeRemote              // the prompt's KV comes from elsewhere: reserve its pages, generate after KVReady
)

// Event is something that happened since the last Step: Add, Cancel, Sampled,
// KVReady, KVFailed or Release. Events about requests that are gone are ignored,
// for they may have crossed with the news.
type Event interface{ event() }

// Add is a new request. Prompt belongs to the scheduler from now on.
type Add struct {
	ID        ID
	Prompt    []terse.Token
	MaxTokens int // tokens to generate at most; 0 only computes the prompt
	Mode      Mode
	// PromptScores wants the logits of every prompt row: no prefix is reused,
	// and its Work has AllLogits.
	PromptScores bool
	// Resumed of the Prompt's last tokens count as generated: they are computed
	// again, as after a preemption, with at most Reuse tokens of a prefix reused
	// where formats tell reused pages from computed ones. ModeLocal only.
	Resumed, Reuse int
}

// Cancel drops a request at once. Rows of the last plan are not trusted: an
// engine whose run failed cancels what was in it.
type Cancel struct{ ID ID }

// Sampled is the token picked for a row of the last plan that had Sample set. It
// is an event as a pointer: every step has some, and boxing them would allocate.
// Finished ends the request (ModePrefill ones still keep their pages until
// Release); a request also ends with its MaxTokens-th token.
type Sampled struct {
	ID       ID
	Token    terse.Token
	Finished bool
}

// KVReady says that every page reserved for a remote request is written, the
// coded forms of full pages in the exact window included, and gives the token
// that the prefill worker sampled. It counts as the first of MaxTokens.
//
// Partial says that second planes are still to come. Until KVWhole the pages are
// not offered to others.
type KVReady struct {
	ID      ID
	First   terse.Token
	Partial bool
}

// KVWhole says that the second planes of a request that was ready without have come.
type KVWhole struct{ ID ID }

// KVFailed says that a remote request's KV will not come; its pages are freed
// and it is dropped.
type KVFailed struct{ ID ID }

// Release says that nobody reads a ModePrefill request's pages any more.
type Release struct{ ID ID }

func (Add) event()      {}
func (Cancel) event()   {}
func (*Sampled) event() {}
func (KVReady) event()  {}
func (KVWhole) event()  {}
func (KVFailed) event() {}
func (Release) event()  {}
