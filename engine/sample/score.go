package sample

import (
	"math"

	"github.com/terse-llm/terse"
)

// Score gives the log-probability of token under logits, and of the topN most
// likely ones. topN < 0 gives none.
func Score(logits []float32, token terse.Token, topN int) terse.Scored {
	s, _ := scoreInto(nil, logits, token, topN)
	return s
}

// scoreInto is Score with memory for the most likely tokens.
func scoreInto(top []terse.Logprob, logits []float32, token terse.Token, topN int) (terse.Scored, []terse.Logprob) {
	sum := logSum(logits)
	s := terse.Scored{Logprob: terse.Logprob{Token: token, Logprob: logprob(logits[token], sum)}}
	top = top[:0]
	for i, v := range logits {
		if topN <= 0 || v != v || len(top) == topN && v <= top[len(top)-1].Logprob {
			continue
		}
		// Insertion from the back: topN is small, and most tokens fail the test above.
		if len(top) < topN {
			top = append(top, terse.Logprob{})
		}
		at := len(top) - 1
		for ; at > 0 && top[at-1].Logprob < v; at-- {
			top[at] = top[at-1]
		}
		top[at] = terse.Logprob{Token: terse.Token(i), Logprob: v}
	}
	for i := range top {
		top[i].Logprob = logprob(top[i].Logprob, sum)
	}
	if len(top) > 0 {
		s.Top = top
	}
	return s, top
}

// logprob is a log-probability that JSON can carry: -Inf and NaN become the
// smallest float32.
func logprob(logit float32, sum float64) float32 {
	v := float64(logit) - sum
	if !(v >= -math.MaxFloat32) {
		return -math.MaxFloat32
	}
	return float32(min(v, 0))
}

// logSum is the logarithm of the sum of the logits' exponentials; NaN counts as
// -Inf.
func logSum(logits []float32) float64 {
	best := float64(logits[argmax(logits)])
	if math.IsInf(best, 0) {
		return best
	}
	sum := 0.0
	for _, v := range logits {
		if v == v {
			sum += math.Exp(float64(v) - best)
		}
	}
	return best + math.Log(sum)
}
