package sample

import "github.com/terse-llm/terse"

// Sampler is the sampling state of one request.
type Sampler struct{}

// New makes the sampler of a request.
func New(s terse.Sampling, prompt []terse.Token) *Sampler { return &Sampler{} }

// Next picks the request's n-th generated token (n counts from 0 and is the
// random counter) and observes it. logits are not changed. The Scored has the
// log-probabilities that Sampling.Logprobs asks for; its Top is valid until the
// next call.
func (s *Sampler) Next(logits []float32, n int) (terse.Token, terse.Scored) {
	return 0, terse.Scored{}
}

// Observe counts a generated token that was picked elsewhere (a replay, or the
// first token of a remote prefill).
func (s *Sampler) Observe(t terse.Token) {}

// Score gives the log-probability of token under logits, and of the topN most
// likely ones. topN < 0 gives none.
func Score(logits []float32, token terse.Token, topN int) terse.Scored { return terse.Scored{} }
