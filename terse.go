package terse

import (
	"slices"
	"time"
)

// Token is a vocabulary id.
type Token int32

// Role is what a worker does for the cluster.
type Role string

// The roles of a worker.
const (
	RolePrefill Role = "prefill"
	RoleDecode  Role = "decode"
	RoleBoth    Role = "both"
)

// Prefills reports whether a worker in this role computes prompts for others.
func (r Role) Prefills() bool { return r == RolePrefill || r == RoleBoth }

// Decodes reports whether a worker in this role generates tokens.
func (r Role) Decodes() bool { return r == RoleDecode || r == RoleBoth }

// Request is one generation, in tokens. Text (templates, stop strings) is the
// gateway's business and never reaches an engine.
type Request struct {
	ID        string
	Prompt    []Token
	MaxTokens int // tokens to generate at most; 0 only scores the prompt
	// Resumed is how many of Prompt's last tokens were generated already, by a
	// worker that was lost: they count as output, and what follows them is what
	// would have followed there. Reused is how many prompt tokens that worker had
	// not computed but reused: coded formats read reused pages otherwise than
	// computed ones, so that at most as many are reused again.
	Resumed, Reused int `json:",omitempty"`
	// Planes, where set, is followed in decoding a prompt that is computed where it
	// is decoded: what a worker that was lost wrote down, or an earlier run.
	Planes   *PlaneRecord `json:",omitempty"`
	Sampling Sampling
	// StopTokens end the generation when sampled; the stop token itself is
	// emitted with FinishStop and counted, but carries no text.
	StopTokens []Token
}

// Sampling says how the next token is picked. The zero value with Seed set is
// greedy (Temperature 0).
type Sampling struct {
	Temperature       float32 // 0 = greedy
	TopK              int     // 0 = off
	TopP              float32 // 0 or 1 = off
	MinP              float32 // 0 = off
	RepetitionPenalty float32 // 0 or 1 = off; over prompt and output
	PresencePenalty   float32 // over output
	FrequencyPenalty  float32 // over output
	LogitBias         map[Token]float32
	Seed              uint64 // the n-th token of a request draws from counter n of this seed
	// Logprobs asks for the natural log-probability of every generated token
	// and of this many most likely ones (0 = the token's own only); -1 = none.
	Logprobs int
	// PromptLogprobs is the same for the prompt's tokens (echo); -1 = none.
	PromptLogprobs int
}

// Logprob is one token with its natural log-probability.
type Logprob struct {
	Token   Token
	Logprob float32
}

// Scored is a token of the text with its log-probability and the most likely
// alternatives at its place, most likely first.
type Scored struct {
	Logprob
	Top []Logprob `json:",omitempty"`
}

// FinishReason says why a generation ended.
type FinishReason string

// The reasons a generation ends, in OpenAI's words where it has one.
const (
	FinishStop   FinishReason = "stop"   // stop token, or (gateway) stop string
	FinishLength FinishReason = "length" // MaxTokens or the context reached
	FinishCancel FinishReason = "cancel" // the client went away
	FinishError  FinishReason = "error"  // see Output.Err
)

// Output is one event of a request's stream. Token events carry Tokens; the
// last event has Finish set, with Usage and Timing (and Err for FinishError).
type Output struct {
	Tokens []Token      `json:",omitempty"`
	Scores []Scored     `json:",omitempty"` // one per Tokens where asked for
	Prompt []Scored     `json:",omitempty"` // prompt scores, in order, perhaps over several events
	Finish FinishReason `json:",omitempty"`
	Usage  *Usage       `json:",omitempty"`
	Timing *Timing      `json:",omitempty"`
	Err    *Error       `json:",omitempty"`
}

// Usage counts a request's tokens.
type Usage struct {
	PromptTokens     int
	CompletionTokens int
	CachedTokens     int // prompt tokens whose KV was reused, not computed
}

// PlaneRecord says which pages of a prompt decoding read by their top planes, and
// until when, where second planes came while it went on (progressive transfer).
// The same record gives the same tokens.
type PlaneRecord struct {
	Awaited []int      `json:",omitempty"` // pages whose second planes were not there when decoding began, in order
	Adopted []Adoption `json:",omitempty"` // in the order of At
}

// Rest is the awaited pages that were not adopted.
func (r *PlaneRecord) Rest() []int {
	var rest []int
	for _, page := range r.Awaited {
		if !slices.ContainsFunc(r.Adopted, func(a Adoption) bool { return slices.Contains(a.Pages, page) }) {
			rest = append(rest, page)
		}
	}
	return rest
}

// Adoption is some pages of a prompt whose second planes are read by the queries
// from position At on.
type Adoption struct {
	At    int
	Pages []int
}

// Timing is a request's job completion time (JCT) by part, and what moved.
// Durations are wall time; parts do not overlap and add up to about the JCT.
type Timing struct {
	Queue    time.Duration // waiting for a prefill slot
	Prefill  time.Duration // computing the prompt, quantisation excluded
	Quantise time.Duration // rotating, coding and packing KV on the prefill side
	Transfer time.Duration // KV transfer not hidden behind prefill
	Wait     time.Duration // KV there (first token known), waiting for a decode slot
	Decode   time.Duration // first token to last
	Attend   time.Duration // of Decode, attention: its products, and dequantising or correcting codes
	TTFT     time.Duration // arrival to first token

	TransferTotal time.Duration // first to last KV byte, hidden part included
	Pack          time.Duration `json:",omitempty"` // of a core, range-coding KV to send it (cachegen); beside prefill and transfer
	Unpack        time.Duration `json:",omitempty"` // of a core, decoding it as it came; likewise
	KVFormat      string
	KVBytes       int64         // KV bytes that crossed between workers
	KVSecond      int64         // of KVBytes, second planes that came apart from the rest (progressive transfer)
	KVBytesHeld   int64         // KV bytes that did not cross because the decode worker held the prefix
	KVExposed     int64         // of KVBytes, what had not arrived when the prompt was computed
	KVBytesF16    int64         // what the same tokens would have been in f16
	PrefillWorker string        `json:",omitempty"`
	DecodeWorker  string        `json:",omitempty"`
	Route         string        `json:",omitempty"` // why it was split or stayed
	Expected      time.Duration // what routing expected of TTFT; 0 where it had not measured enough
	Replayed      int           `json:",omitempty"` // tokens from behind which another decode worker went on
	Recovered     int           `json:",omitempty"` // of the text up to there, tokens whose KV came from a replica and was not computed again
	Planes        string        `json:",omitempty"` // why second planes came apart from the rest, or with it
	PlaneRecord                 // what was computed on which planes
	TopTokens     int           `json:",omitempty"` // tokens computed while some second planes were not read
	Adoption      time.Duration `json:",omitempty"` // from the first token until all second planes were read; 0 where some never were
	Retries       int           `json:",omitempty"` // re-prefills after a lost worker or a broken transfer
}

// CountSecond books the second planes that have come apart so far, in bytes.
func (t *Timing) CountSecond(came int64) {
	t.KVBytes += came - t.KVSecond
	t.KVSecond = came
}
