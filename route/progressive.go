package route

import "fmt"

// Progressive says whether a decode worker begins on the top planes of a prompt's
// codes while the second ones still come.
type Progressive string

// The ways: always, never ("" is never too), or where a request would be late otherwise.
const (
	ProgressiveOn   Progressive = "on"
	ProgressiveOff  Progressive = "off"
	ProgressiveAuto Progressive = "auto"
)

// Known reports whether p is one of the three.
func (p Progressive) Known() bool {
	return p == ProgressiveOn || p == ProgressiveOff || p == ProgressiveAuto
}

// leastEarlier is the part of the time to the first token that second planes must
// cost to be sent apart. Less is in the estimate's noise, and second planes that
// come apart come behind all else, hidden by nothing.
const leastEarlier = 0.1

// planes decides whether the second planes of a split prompt come apart from the
// rest. That brings the first token forward by the time they take on the link, and
// computes what comes until they are there on fewer bits: a price that is paid
// only where somebody asks for a time and it would be missed.
func planes(p, d Candidate, ask Ask, rate float64) (apart bool, reason string) {
	switch {
	case d.KVSecond <= 0:
		return false, "whole: the format has no second planes"
	case d.Progressive == ProgressiveOn:
		return true, "apart: told to"
	case d.Progressive != ProgressiveAuto:
		return false, "whole: told to"
	case ask.TTFT <= 0:
		return false, "whole: no time to the first token is asked for"
	case rate <= 0:
		return false, "whole: prefill was not measured"
	case d.Links[p.ID] <= 0:
		return false, "whole: the link was not measured"
	}
	whole, top := splitting(p, d, ask, rate, false).first, splitting(p, d, ask, rate, true).first
	switch {
	case duration(whole) <= ask.TTFT:
		return false, fmt.Sprintf("whole: in time, %s of %s", short(whole), short(ask.TTFT.Seconds()))
	case whole-top < leastEarlier*whole:
		return false, fmt.Sprintf("whole: hardly later, %s against %s", short(whole), short(top))
	}
	return true, fmt.Sprintf("apart: late otherwise, %s against %s of %s", short(whole), short(top), short(ask.TTFT.Seconds()))
}

// moving is the seconds that what must be there before the first token takes from
// p to d; 0 where the link was not measured.
func moving(p, d Candidate, ask Ask, apart bool) float64 {
	link := d.Links[p.ID]
	if link <= 0 {
		return 0
	}
	tokens := float64(remaining(ask.PromptTokens, d))
	bytes := p.KVFixed + p.KVPerToken*tokens
	if apart {
		bytes -= p.KVSecond * max(0, tokens-exactWindows)
	}
	return max(0, bytes) / link
}

// exactWindows is the tokens of a prompt that cross exactly, its first page and its
// last two: they have no planes.
const exactWindows = 64 + 128
