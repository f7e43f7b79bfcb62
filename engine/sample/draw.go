package sample

import (
	"math"
	"slices"

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

// blockSize is the number of tokens whose weights are at hand at a time: a whole
// row of them per request would be the engine's largest buffer.
const blockSize = 1024

// block gives the weights of tokens [from, from+blockSize), and their sum. They
// are valid until the next call.
func (s *Sampler) block(logits []float32, w weights, from int) (p []float32, sum float64) {
	part := logits[from:min(from+blockSize, len(logits))]
	p = s.weights[:len(part)]
	if !math.IsInf(w.max, 0) {
		return p, s.vec.ExpSum(p, part, float32(w.max), float32(w.scale))
	}
	for i, l := range part {
		p[i] = float32(w.of(l))
		sum += float64(p[i])
	}
	return p, sum
}

// drawAny draws from all tokens.
func (s *Sampler) drawAny(logits []float32, w weights, u float64) terse.Token {
	s.blocks = s.blocks[:0]
	var total float64
	for from := 0; from < len(logits); from += blockSize {
		_, sum := s.block(logits, w, from)
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
	p, _ := s.block(logits, w, block*blockSize)
	for i, v := range p {
		if v == 0 {
			continue
		}
		picked = block*blockSize + i // rounding may leave a rest behind the last one
		if target < float64(v) {
			break
		}
		target -= float64(v)
	}
	return terse.Token(picked)
}

// Weights of (0, 1] are put into bins by their exponents and leading bits: each
// spans 3 % of its value. Bins are in the order of weights.
const (
	binShift = 18
	binOfOne = 127 << (23 - binShift)
)

func binOf(weight float32) int { return int(math.Float32bits(weight) >> binShift) }

// drawLikely draws from the tokens that min-p and top-p leave. Nothing is sorted
// but the one bin in which top-p cuts.
func (s *Sampler) drawLikely(logits []float32, w weights, u float64) terse.Token {
	total := s.fillBins(logits, w)
	cut, above := s.cutBin(total)
	s.gatherBin(logits, w, cut)
	last := s.nucleus(total, above)
	var within float64
	for _, c := range last {
		within += c.weight
	}
	target := u * (above + within)
	if target < above {
		if t, ok := s.drawAbove(logits, w, cut, &target); ok {
			return t
		}
	}
	return draw(last, (target-above)/within)
}

// fillBins adds up the weights that min-p leaves, bin by bin, and all of them.
func (s *Sampler) fillBins(logits []float32, w weights) (total float64) {
	if s.bins == nil {
		s.bins = make([]float64, binOfOne+1)
	}
	clear(s.bins)
	for from := 0; from < len(logits); from += blockSize {
		p, _ := s.block(logits, w, from)
		for _, v := range p {
			if v > 0 && !(v < s.p.MinP) {
				s.bins[binOf(v)] += float64(v)
			}
		}
	}
	for _, sum := range s.bins {
		total += sum
	}
	return total
}

// cutBin is the bin in which the most likely tokens come to have top-p of the
// total, and what the bins above it have. Without top-p it is the last bin with
// anything in it.
func (s *Sampler) cutBin(total float64) (bin int, above float64) {
	enough := total
	if s.topP() {
		enough *= float64(s.p.TopP)
	}
	var sum float64
	for i, v := range slices.Backward(s.bins) {
		if v == 0 {
			continue
		}
		bin, above = i, sum
		sum += v
		if sum >= enough {
			break
		}
	}
	return bin, above
}

// gatherBin fills buf with the tokens of a bin, best first.
func (s *Sampler) gatherBin(logits []float32, w weights, bin int) {
	s.buf = s.buf[:0]
	for from := 0; from < len(logits); from += blockSize {
		p, _ := s.block(logits, w, from)
		for i, v := range p {
			if binOf(v) == bin && !(v < s.p.MinP) {
				s.buf = append(s.buf, candidate{token: terse.Token(from + i), logit: logits[from+i], weight: float64(v)})
			}
		}
	}
	sortBest(s.buf)
}

// drawAbove picks the token of the bins above cut at which target is used up.
func (s *Sampler) drawAbove(logits []float32, w weights, cut int, target *float64) (terse.Token, bool) {
	rest := *target
	for from := 0; from < len(logits); from += blockSize {
		p, _ := s.block(logits, w, from)
		for i, v := range p {
			if binOf(v) <= cut {
				continue
			}
			if rest < float64(v) {
				return terse.Token(from + i), true
			}
			rest -= float64(v)
		}
	}
	return 0, false // rounding
}

// gatherTopK fills buf with the k most likely tokens that min-p leaves, best
// first, and returns the sum of their weights.
func (s *Sampler) gatherTopK(logits []float32, w weights) (total float64) {
	s.largest(logits, s.p.TopK)
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

// nucleus is the shortest run of the best candidates that has, with the tokens
// above them, top-p of the total.
func (s *Sampler) nucleus(total, above float64) []candidate {
	if !s.topP() {
		return s.buf
	}
	for i, c := range s.buf {
		above += c.weight
		if above >= float64(s.p.TopP)*total {
			return s.buf[:i+1]
		}
	}
	return s.buf
}

func (s *Sampler) topP() bool { return s.p.TopP > 0 && s.p.TopP < 1 }

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
