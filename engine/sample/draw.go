package sample

import (
	"math"

	"github.com/terse-llm/terse"
)

// weights turns logits into unnormalised probabilities, 1 for the largest.
type weights struct {
	max   float64 // the largest logit
	scale float64 // 1 / temperature
}

func (w weights) of(l float32) float64 {
	switch x := float64(l); {
	case x == w.max: // plus infinity as well
		return 1
	case x > math.Inf(-1):
		return math.Exp((x - w.max) * w.scale)
	}
	return 0 // minus infinity or NaN
}

// A row is summed up in blocks, so that the draw has to look at one block only.
const blockSize = 256

// drawAny draws from all tokens.
func (s *Sampler) drawAny(logits []float32, w weights, u float64) terse.Token {
	s.blocks = s.blocks[:0]
	var total float64
	for from := 0; from < len(logits); from += blockSize {
		var sum float64
		for _, l := range logits[from:min(from+blockSize, len(logits))] {
			sum += w.of(l)
		}
		s.blocks = append(s.blocks, sum)
		total += sum
	}
	target, block := u*total, 0
	for i, sum := range s.blocks {
		if sum == 0 {
			continue
		}
		block = i
		if target < sum {
			break
		}
		target -= sum
	}
	picked := 0
	from := block * blockSize
	for i, l := range logits[from:min(from+blockSize, len(logits))] {
		p := w.of(l)
		if p == 0 {
			continue
		}
		picked = from + i // rounding may leave a rest behind the last one
		if target < p {
			break
		}
		target -= p
	}
	return terse.Token(picked)
}

// gatherTopK fills buf with the k most likely tokens that min-p leaves, best
// first, and returns the sum of their weights.
func (s *Sampler) gatherTopK(logits []float32, w weights) (total float64) {
	s.buf = largest(logits, s.p.TopK, s.buf)
	for i := range s.buf {
		c := &s.buf[i]
		c.weight = w.of(c.logit)
		if c.weight < float64(s.p.MinP) || c.weight == 0 {
			s.buf = s.buf[:i]
			break
		}
		total += c.weight
	}
	return total
}

// Tokens this much less likely than the most likely one are rarely within top-p.
const unlikely = 1e-4

// gatherTopP fills buf with the tokens that min-p leaves, best first, and
// returns the sum of all their weights. With top-p it leaves out the unlikely
// ones if the others are enough.
func (s *Sampler) gatherTopP(logits []float32, w weights) (total float64) {
	floor := float64(s.p.MinP)
	topP := s.p.TopP > 0 && s.p.TopP < 1
	if topP {
		floor = max(floor, unlikely)
	}
	var kept float64
	kept, total = s.gather(logits, w, floor)
	if topP && kept < float64(s.p.TopP)*total {
		s.gather(logits, w, float64(s.p.MinP))
	}
	sortBest(s.buf)
	return total
}

// gather fills buf with the tokens whose weight is at least floor, and sums up
// the weights of these and of all that min-p leaves.
func (s *Sampler) gather(logits []float32, w weights, floor float64) (kept, total float64) {
	s.buf = s.buf[:0]
	for i, l := range logits {
		p := w.of(l)
		if p == 0 || p < float64(s.p.MinP) {
			continue
		}
		total += p
		if p >= floor {
			kept += p
			s.buf = append(s.buf, candidate{token: terse.Token(i), logit: l, weight: p})
		}
	}
	return kept, total
}

// nucleus is the shortest run of the best candidates that has top-p of the
// total.
func (s *Sampler) nucleus(total float64) []candidate {
	if !(s.p.TopP > 0 && s.p.TopP < 1) {
		return s.buf
	}
	var sum float64
	for i, c := range s.buf {
		sum += c.weight
		if sum >= float64(s.p.TopP)*total {
			return s.buf[:i+1]
		}
	}
	return s.buf
}

// draw picks one of the candidates, of which there is one at least: the most
// likely token passes every filter.
func draw(from []candidate, u float64) terse.Token {
	var total float64
	for _, c := range from {
		total += c.weight
	}
	target := u * total
	for _, c := range from {
		if target < c.weight {
			return c.token
		}
		target -= c.weight
	}
	return from[len(from)-1].token
}

// uniform is the n-th random number of a seed, in [0, 1): two rounds of
// SplitMix64's output function, first over the seed, then over the counter
// started from it. (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, 2014.)
func uniform(seed, n uint64) float64 {
	x := mix(mix(seed+gamma) + (n+1)*gamma)
	return float64(x>>11) / (1 << 53)
}

const gamma = 0x9e3779b97f4a7c15

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
