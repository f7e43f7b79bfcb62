package sample

import (
	"cmp"
	"math"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels/cpu/vec"
)

// Below this temperature the largest logit wins all but impossible draws, and
// dividing by it would overflow.
const greedyBelow = 1e-5

// Sampler is the sampling state of one request.
type Sampler struct {
	p    terse.Sampling
	bias []weighted

	// Of the text so far, where there are penalties.
	penalties bool
	index     map[terse.Token]int
	history   []occurrence

	changed []weighted // logits as they were, to be put back
	tools
}

// tools are the kernels and what is kept so as not to allocate.
type tools struct {
	vec     *vec.Kernels
	weights []float32 // of one block of tokens
	blocks  []float64 // their sums
	bins    []float64 // sums of weights by size
	groups  []float32 // largest logits of small groups
	reach   []int32   // tokens that may be among the best
	buf     []candidate
	top     []terse.Logprob
}

func newTools() tools {
	return tools{vec: vec.For(cpu.Best()), weights: make([]float32, blockSize)}
}

type weighted struct {
	token terse.Token
	value float32
}

// occurrence is a token of the prompt or of the output.
type occurrence struct {
	token  terse.Token
	output int // how often it was generated
}

// New makes the sampler of a request.
func New(p terse.Sampling, prompt []terse.Token) *Sampler {
	s := &Sampler{p: p, tools: newTools()}
	s.p.MinP = min(p.MinP, 1) // the most likely token always passes
	for t, v := range p.LogitBias {
		s.bias = append(s.bias, weighted{t, v})
	}
	slices.SortFunc(s.bias, func(a, b weighted) int { return cmp.Compare(a.token, b.token) })
	s.penalties = s.repeats() || p.PresencePenalty != 0 || p.FrequencyPenalty != 0
	if s.penalties {
		s.index = make(map[terse.Token]int)
		for _, t := range prompt {
			s.entry(t)
		}
	}
	return s
}

func (s *Sampler) repeats() bool { return s.p.RepetitionPenalty > 0 && s.p.RepetitionPenalty != 1 }

// Greedy reports whether every token is simply the most likely one, so that
// Next need not be asked.
func (s *Sampler) Greedy() bool {
	return !(s.p.Temperature >= greedyBelow) && s.p.Logprobs < 0 && !s.penalties && len(s.bias) == 0
}

// Drawing is a draw that needs nothing but the logits: temperature, min-p, top-k,
// top-p and a random number.
type Drawing struct {
	U                       float64 // of [0, 1)
	Temperature, TopP, MinP float32
	TopK                    int
}

// Drawing is how the n-th token is drawn, where Next would do nothing else: whatever
// draws so elsewhere need not ask it.
func (s *Sampler) Drawing(n int) (Drawing, bool) {
	d := Drawing{U: uniform(s.p.Seed, uint64(n)), Temperature: s.p.Temperature, TopP: s.p.TopP, MinP: s.p.MinP, TopK: s.p.TopK}
	return d, s.p.Temperature >= greedyBelow && s.p.Logprobs < 0 && !s.penalties && len(s.bias) == 0
}

// Next picks the request's n-th generated token (n counts from 0 and is the
// random counter) and observes it. logits are changed during the call and as
// before after it. The Scored has the log-probabilities that Sampling.Logprobs
// asks for; its Top is valid until the next call.
func (s *Sampler) Next(logits []float32, n int) (terse.Token, terse.Scored) {
	var scored terse.Scored
	var d distribution
	if s.p.Logprobs >= 0 {
		d = s.distributionOf(logits)
		scored.Top = s.mostLikely(logits, d, s.p.Logprobs)
	}
	s.adjust(logits)
	token := s.pick(logits, uniform(s.p.Seed, uint64(n)))
	s.restore(logits)
	scored.Token = token
	if s.p.Logprobs >= 0 {
		scored.Logprob.Logprob = d.logprobOf(logits, token)
	}
	s.Observe(token)
	return token, scored
}

// Observe counts a generated token that was picked elsewhere (a replay, or the
// first token of a remote prefill).
func (s *Sampler) Observe(t terse.Token) {
	if s.penalties {
		s.history[s.entry(t)].output++
	}
}

func (s *Sampler) entry(t terse.Token) int {
	i, ok := s.index[t]
	if !ok {
		i = len(s.history)
		s.index[t] = i
		s.history = append(s.history, occurrence{token: t})
	}
	return i
}

// adjust applies bias and penalties in place: they touch few logits, and a copy
// of a whole row per request would be the engine's largest buffer.
func (s *Sampler) adjust(logits []float32) {
	for _, b := range s.bias {
		s.change(logits, b.token, func(l float32) float32 { return l + b.value })
	}
	for _, o := range s.history {
		s.change(logits, o.token, func(l float32) float32 { return s.penalised(l, o.output) })
	}
}

func (s *Sampler) change(logits []float32, t terse.Token, f func(float32) float32) {
	if t < 0 || int(t) >= len(logits) {
		return
	}
	s.changed = append(s.changed, weighted{t, logits[t]})
	logits[t] = f(logits[t])
}

func (s *Sampler) penalised(l float32, output int) float32 {
	if s.repeats() {
		if l > 0 {
			l /= s.p.RepetitionPenalty
		} else {
			l *= s.p.RepetitionPenalty
		}
	}
	if output > 0 {
		l -= s.p.FrequencyPenalty*float32(output) + s.p.PresencePenalty
	}
	return l
}

func (s *Sampler) restore(logits []float32) {
	for _, c := range slices.Backward(s.changed) {
		logits[c.token] = c.value
	}
	s.changed = s.changed[:0]
}

// pick chooses a token for the random number u of [0, 1).
func (s *Sampler) pick(logits []float32, u float64) terse.Token {
	best := s.vec.ArgMax(logits)
	if !(s.p.Temperature >= greedyBelow) || !(logits[best] > float32(math.Inf(-1))) {
		return terse.Token(best)
	}
	w := weights{max: float64(logits[best]), scale: 1 / float64(s.p.Temperature)}
	topK := s.p.TopK > 0 && s.p.TopK < len(logits)
	switch {
	case topK:
		total := s.gatherTopK(logits, w)
		return draw(s.nucleus(total, 0), u)
	case s.topP() || s.p.MinP > 0:
		return s.drawLikely(logits, w, u)
	}
	return s.drawAny(logits, w, u)
}
