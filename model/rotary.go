package model

import (
	"fmt"
	"math"
)

// Rotary is a rotary position embedding (arXiv 2104.09864) with its scaling to
// longer contexts.
type Rotary struct {
	Theta       float64
	Dim         int  // channels of each head that turn, even
	Interleaved bool // pairs (2i, 2i+1) as in GGUF's Llama weights; else (i, i+Dim/2)
	Scaling     Scaling
}

// Scaling changes the frequencies of a model that was trained at a shorter
// context. The fields beside Type are of the types that name them.
type Scaling struct {
	Type     string  // "" (none), "linear", "llama3" or "yarn"
	Factor   float64 // how much longer the context becomes
	Original float64 // llama3, yarn: tokens of the context before

	LowFreq, HighFreq float64 // llama3: turns within Original below and above which frequencies scale fully and not at all

	BetaFast, BetaSlow float64 // yarn: the same, in yarn's order
	Attention          float64 // yarn: factor of cosines and sines
	Exact              bool    // yarn: the corrected range is not rounded to whole channels
}

func (r Rotary) check(headDim int) error {
	s := r.Scaling
	switch {
	case r.Dim < 2 || r.Dim%2 != 0 || r.Dim > headDim:
		return fmt.Errorf("%d of %d channels of a head are rotary, want an even number of them", r.Dim, headDim)
	case !(r.Theta > 1 && r.Theta < 1e15):
		return fmt.Errorf("rope theta is %g, want more than 1 and less than 1e15", r.Theta)
	case s.Type == "":
		return nil
	case !(s.Factor >= 1 && s.Factor <= 1e6):
		return fmt.Errorf("the factor of rope scaling %q is %g, want 1 to 1e6", s.Type, s.Factor)
	case s.Type == "linear":
		return nil
	case !(s.Original >= 1 && s.Original <= maxTokens):
		return fmt.Errorf("rope scaling %q wants original_max_position_embeddings, and has %g", s.Type, s.Original)
	case s.Type == "llama3" && !(s.LowFreq > 0 && s.HighFreq > s.LowFreq && s.HighFreq < 1e9):
		return fmt.Errorf("rope scaling llama3 has low_freq_factor %g and high_freq_factor %g, want 0 < low < high", s.LowFreq, s.HighFreq)
	case s.Type == "yarn" && !(s.BetaSlow > 0 && s.BetaFast >= s.BetaSlow && s.BetaFast < 1e9 && s.Attention > 0 && s.Attention < 1e3):
		return fmt.Errorf("rope scaling yarn has beta_slow %g, beta_fast %g and attention factor %g, want 0 < slow <= fast and a positive factor", s.BetaSlow, s.BetaFast, s.Attention)
	}
	return nil
}

// frequencies are what a model's rotary angles are computed from.
type frequencies struct {
	inverse []float32 // radians per position, one per pair
	scale   float32   // of cosines and sines (YaRN's attention factor); 1 normally
}

// frequencies are r's, each divided by its entry of divisors (a GGUF file's
// rope_freqs.weight) where there are any.
func (r Rotary) frequencies(divisors []float32) frequencies {
	t := frequencies{inverse: make([]float32, r.Dim/2), scale: 1}
	if r.Scaling.Type == "yarn" {
		t.scale = float32(r.Scaling.Attention)
	}
	for i := range t.inverse {
		f := r.scaled(i)
		if divisors != nil {
			f /= float64(divisors[i])
		}
		t.inverse[i] = float32(f)
	}
	return t
}

// Rotations are what the model's rotary embedding turns K and Q by: radians per
// position of each pair of channels, (2i, 2i+1) if interleaved and (i, i+pairs)
// otherwise.
func (m *Model) Rotations() (inverse []float32, interleaved bool) {
	return m.rope.inverse, m.Config.Rotary.Interleaved
}

// angles fills the cosines and sines of one position. The angle is rounded to
// float32 as in the implementations that models are trained with: at position
// 8,000 the rounding is worth 2e-4 radians.
func (f *frequencies) angles(cos, sin []float32, pos int) {
	for i, inv := range f.inverse {
		s, c := math.Sincos(float64(float32(pos) * inv))
		cos[i], sin[i] = float32(c)*f.scale, float32(s)*f.scale
	}
}

// scaled is the inverse frequency of pair i, in radians per token.
func (r Rotary) scaled(i int) float64 {
	f := math.Pow(r.Theta, -2*float64(i)/float64(r.Dim))
	switch s := r.Scaling; s.Type {
	case "linear": // arXiv 2306.15595: positions are compressed
		return f / s.Factor
	case "llama3": // Llama 3.1: long waves scale, short ones stay, blended between
		turns := s.Original * f / (2 * math.Pi)
		keep := clamp((turns - s.LowFreq) / (s.HighFreq - s.LowFreq))
		return blend(f/s.Factor, f, keep)
	case "yarn": // arXiv 2309.00071 section 3.2, blended by channel and not by wavelength
		fast, slow := r.pairAt(s.BetaFast), r.pairAt(s.BetaSlow)
		if !s.Exact {
			fast, slow = math.Floor(fast), math.Ceil(slow)
		}
		fast, slow = max(fast, 0), min(slow, float64(r.Dim-1))
		if fast == slow {
			slow += 0.001 // as the original does, against a division by zero
		}
		return blend(f, f/s.Factor, clamp((float64(i)-fast)/(slow-fast)))
	}
	return f
}

// pairAt is the (fractional) pair that makes the given number of turns within
// the original context.
func (r Rotary) pairAt(turns float64) float64 {
	return float64(r.Dim) * math.Log(r.Scaling.Original/(turns*2*math.Pi)) / (2 * math.Log(r.Theta))
}

func clamp(x float64) float64 { return min(max(x, 0), 1) }

// blend goes from a (at 0) to b (at 1).
func blend(a, b, at float64) float64 { return (1-at)*a + at*b }

// yarnAttention is the factor on cosines and sines that YaRN's authors fitted.
func yarnAttention(factor, mscale float64) float64 {
	if factor <= 1 {
		return 1
	}
	return 0.1*mscale*math.Log(factor) + 1
}
