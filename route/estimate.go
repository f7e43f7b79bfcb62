package route

import (
	"fmt"
	"time"
)

// stepTokens is how many prompt tokens an engine computes at a time, unless it
// is told otherwise: what is transferred of the last step's is hidden by nothing.
const stepTokens = 512

// estimate is what a way to compute a prompt costs, in seconds.
type estimate struct {
	first float64 // until the request's first token
	cost  float64 // and by how much it holds up others meanwhile, request by request
}

// rateOf is how fast c computes prompts, or how fast other does, where that is
// all that is known; 0 where nothing is.
func rateOf(c, other Candidate) float64 {
	if c.PrefillRate > 0 {
		return c.PrefillRate
	}
	return other.PrefillRate
}

// staying is the cost of computing the prompt where it is decoded. Every request
// that decodes there waits for the prompt's steps, as long as it lasts: a decode
// worker is there to decode, so that one is reckoned with even when there is none.
func staying(d Candidate, ask Ask, rate float64) estimate {
	compute := float64(remaining(ask.PromptTokens, d)) / rate
	first := float64(d.WaitingTokens)/rate + compute
	steps := float64((ask.PromptTokens + stepTokens - 1) / stepTokens)
	lasts := 1.0 // the part of the steps that a request has tokens left for
	if ask.Output > 0 {
		lasts = min(1, float64(ask.Output)/2/steps)
	}
	return estimate{first: first, cost: first + compute*lasts*float64(max(1, d.Running))}
}

// splitting is the cost of computing the prompt at p and moving its KV to d.
// The two go on at the same time; what the last step computes comes behind it.
// A link that was not measured is taken to be hidden. Second planes that come
// apart are not waited for.
func splitting(p, d Candidate, ask Ask, rate float64, apart bool) estimate {
	first := float64(p.WaitingTokens) / rate
	compute := float64(remaining(ask.PromptTokens, p)) / rate
	move := moving(p, d, ask, apart)
	steps := float64((ask.PromptTokens + stepTokens - 1) / stepTokens)
	first += max(compute, move) + min(move, compute)/steps
	return estimate{first: first, cost: first}
}

func remaining(prompt int, c Candidate) int { return max(prompt-c.CachedPrefix, 0) }

func duration(seconds float64) time.Duration {
	return time.Duration(min(seconds, 1e6) * float64(time.Second))
}

func short(seconds float64) string { return fmt.Sprintf("%.3g s", seconds) }
