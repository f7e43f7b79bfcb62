package sample

import (
	"cmp"
	"math"
	"slices"

	"github.com/terse-llm/terse"
)

// Sampler is the sampling state of one request.
type Sampler struct {
	opts   terse.Sampling
	output map[terse.Token]int  // generated tokens and how often
	seen   map[terse.Token]bool // prompt and output, for the repetition penalty

	logits []float32   // a copy that bias and penalties change
	cands  []candidate // what is left to draw from, most likely first
	top    []terse.Logprob
}

// candidate is a token with its adjusted logit, later its probability.
type candidate struct {
	token terse.Token
	p     float64
}

// New makes the sampler of a request.
func New(s terse.Sampling, prompt []terse.Token) *Sampler {
	out := &Sampler{opts: s, output: map[terse.Token]int{}}
	if out.repeats() {
		out.seen = make(map[terse.Token]bool, len(prompt))
		for _, t := range prompt {
			out.seen[t] = true
		}
	}
	return out
}

func (s *Sampler) repeats() bool {
	return s.opts.RepetitionPenalty != 0 && s.opts.RepetitionPenalty != 1
}

// Next picks the request's n-th generated token (n counts from 0 and is the
// random counter) and observes it. logits are not changed. The Scored has the
// log-probabilities that Sampling.Logprobs asks for; its Top is valid until the
// next call. A logit that is NaN counts as -Inf; if nothing is finite, token 0
// is picked.
func (s *Sampler) Next(logits []float32, n int) (terse.Token, terse.Scored) {
	adjusted := s.adjust(logits)
	var token terse.Token
	if s.opts.Temperature <= 0 {
		token = argmax(adjusted)
	} else {
		token = s.draw(adjusted, uniform(s.opts.Seed, uint64(n)))
	}
	s.Observe(token)
	var score terse.Scored
	if s.opts.Logprobs >= 0 {
		score, s.top = scoreInto(s.top, logits, token, s.opts.Logprobs)
	}
	return token, score
}

// Observe counts a generated token that was picked elsewhere (a replay, or the
// first token of a remote prefill).
func (s *Sampler) Observe(t terse.Token) {
	s.output[t]++
	if s.seen != nil {
		s.seen[t] = true
	}
}

// adjust applies bias and penalties to a copy of the logits, or returns them as
// they are where there is nothing to apply.
func (s *Sampler) adjust(logits []float32) []float32 {
	o := &s.opts
	if len(o.LogitBias) == 0 && !s.repeats() && o.PresencePenalty == 0 && o.FrequencyPenalty == 0 {
		return logits
	}
	s.logits = append(s.logits[:0], logits...)
	l := s.logits
	for t, b := range o.LogitBias {
		if int(t) < len(l) && t >= 0 {
			l[t] += b
		}
	}
	for t := range s.seen {
		if int(t) < len(l) && l[t] > 0 {
			l[t] /= o.RepetitionPenalty
		} else if int(t) < len(l) {
			l[t] *= o.RepetitionPenalty
		}
	}
	for t, count := range s.output {
		if int(t) < len(l) {
			l[t] -= o.PresencePenalty + o.FrequencyPenalty*float32(count)
		}
	}
	return l
}

func argmax(logits []float32) terse.Token {
	best, found := 0, false
	for i, v := range logits {
		if v == v && (!found || v > logits[best]) {
			best, found = i, true
		}
	}
	return terse.Token(best)
}

// draw picks by u in [0, 1): temperature, min-p, top-k, top-p, then one draw
// over what is left, most likely tokens first (lower ids on ties).
func (s *Sampler) draw(logits []float32, u float64) terse.Token {
	best := float64(logits[argmax(logits)])
	if math.IsInf(best, 0) || math.IsNaN(best) {
		return argmax(logits)
	}
	// A token e^-50 times less likely than the best cannot matter to a draw of
	// 53 bits: leaving it out keeps the sort short.
	floor := -50.0
	if s.opts.MinP > 0 {
		floor = max(floor, math.Log(float64(s.opts.MinP)))
	}
	s.cands = s.cands[:0]
	for i, v := range logits {
		if d := (float64(v) - best) / float64(s.opts.Temperature); d >= floor {
			s.cands = append(s.cands, candidate{terse.Token(i), math.Exp(d)})
		}
	}
	slices.SortFunc(s.cands, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.p, a.p), cmp.Compare(a.token, b.token))
	})
	left := s.cut()
	sum := 0.0
	for _, c := range left {
		sum += c.p
	}
	u *= sum
	for _, c := range left {
		if u -= c.p; u < 0 {
			return c.token
		}
	}
	return left[len(left)-1].token
}

// cut applies top-k, then top-p to the sorted candidates.
func (s *Sampler) cut() []candidate {
	left := s.cands
	if s.opts.TopK > 0 {
		left = left[:min(len(left), s.opts.TopK)]
	}
	if s.opts.TopP <= 0 || s.opts.TopP >= 1 {
		return left
	}
	sum := 0.0
	for _, c := range left {
		sum += c.p
	}
	part := 0.0
	for i, c := range left {
		if part += c.p; part >= sum*float64(s.opts.TopP) {
			return left[:i+1]
		}
	}
	return left
}

// uniform is draw n of a seed's stream: splitmix64's finaliser over seed and
// counter, so that draws can be made in any order and on any machine.
func uniform(seed, n uint64) float64 {
	return float64(mix(mix(seed)+n*0x9e3779b97f4a7c15)>>11) / (1 << 53)
}

func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
