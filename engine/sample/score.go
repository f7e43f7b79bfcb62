package sample

import (
	"math"

	"github.com/terse-llm/terse"
)

// Floor is the least log-probability that is reported, of impossible tokens too.
const Floor = -9999

// distribution is the softmax of a row.
type distribution struct {
	max    float64 // the largest logit
	logSum float64 // log of the sum of exp(logit - max)
}

func (s *Sampler) distributionOf(logits []float32) distribution {
	w := weights{max: float64(s.vec.Max(logits)), scale: 1}
	if !(w.max > math.Inf(-1)) {
		return distribution{max: math.Inf(-1)}
	}
	var sum float64
	for from := 0; from < len(logits); from += blockSize {
		_, part := s.block(logits, w, from)
		sum += part
	}
	return distribution{max: w.max, logSum: math.Log(sum)}
}

func (d distribution) logprob(l float32) float32 {
	x := float64(l)
	switch {
	case !(x > math.Inf(-1)):
		return Floor
	case x == d.max:
		return float32(-d.logSum)
	}
	return float32(max(Floor, x-d.max-d.logSum))
}

func (d distribution) logprobOf(logits []float32, t terse.Token) float32 {
	if t < 0 || int(t) >= len(logits) {
		return Floor
	}
	return d.logprob(logits[t])
}

// mostLikely is the n most likely possible tokens, best first.
func (s *Sampler) mostLikely(logits []float32, d distribution, n int) []terse.Logprob {
	if n <= 0 {
		return nil
	}
	s.largest(logits, n)
	s.top = s.top[:0]
	for _, c := range s.buf {
		s.top = append(s.top, terse.Logprob{Token: c.token, Logprob: d.logprob(c.logit)})
	}
	return s.top
}

// Score gives the log-probability of token under logits, and of the topN most
// likely ones; topN < 1 gives none.
func Score(logits []float32, token terse.Token, topN int) terse.Scored {
	s := Sampler{tools: newTools()}
	d := s.distributionOf(logits)
	return terse.Scored{
		Logprob: terse.Logprob{Token: token, Logprob: d.logprobOf(logits, token)},
		Top:     s.mostLikely(logits, d, topN),
	}
}
