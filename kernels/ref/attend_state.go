package ref

import "math"

// State is the attention of one query over some of its tokens: the largest
// scaled score, the sum of exp(score - Top) and the values weighted likewise.
// States of disjoint tokens merge in any order.
type State struct {
	Top float32 // -Inf while there are no tokens
	Sum float32
	Acc []float32 // [HeadDim]
}

// Merge adds the tokens of o.
func (s *State) Merge(o State) {
	if o.Sum == 0 {
		return
	}
	top := max(s.Top, o.Top)
	a, b := expNeg(s.Top-top), expNeg(o.Top-top)
	s.Top, s.Sum = top, a*s.Sum+b*o.Sum
	for c, v := range o.Acc {
		s.Acc[c] = a*s.Acc[c] + b*v
	}
}

// Finish writes the attention output, zeros where no token was seen.
func (s *State) Finish(out []float32) {
	if s.Sum == 0 {
		clear(out)
		return
	}
	inv := 1 / s.Sum
	for c, v := range s.Acc {
		out[c] = v * inv
	}
}

const (
	log2e = 1.44269504088896340736
	ln2Hi = 0.693145751953125 // the leading bits: n·ln2Hi is exact
	ln2Lo = 1.42860682030941723212e-6
)

// expNeg is e^x for x <= 0 within 2 units in the last place, and 0 where e^x
// is no normal float32. Softmax calls it once per score, and math.Exp's double
// precision costs twice as much.
func expNeg(x float32) float32 {
	if !(x > -87) {
		if x != x {
			return x
		}
		return 0
	}
	n := int32(x*log2e - 0.5) // towards zero: to nearest, x being negative
	f := float32(n)
	r := x - f*ln2Hi - f*ln2Lo
	p := float32(1.0 / 5040)
	p = p*r + 1.0/720
	p = p*r + 1.0/120
	p = p*r + 1.0/24
	p = p*r + 1.0/6
	p = p*r + 0.5
	p = p*r + 1
	p = p*r + 1
	return p * math.Float32frombits(uint32(n+127)<<23)
}
