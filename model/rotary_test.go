package model

import (
	"math"
	"testing"
)

// Frequencies worked out by hand from the formulas of Llama 3.1 and of the
// papers.
func TestRotaryFrequencies(t *testing.T) {
	f := func(name string, r Rotary, i int, want float64) {
		t.Helper()
		if err := r.check(r.Dim); err != nil {
			t.Fatal(err)
		}
		got := float64(r.frequencies(nil).inverse[i])
		if !(math.Abs(got-want) <= 2e-6*want) {
			t.Errorf("%s: frequency of pair %d is %.8g, want %.8g", name, i, got, want)
		}
	}
	plain := Rotary{Theta: 10000, Dim: 128}
	f("plain", plain, 0, 1)
	f("plain", plain, 16, 0.1) // 10000^(-32/128)
	f("plain", plain, 32, 0.01)
	linear := Rotary{Theta: 10000, Dim: 128, Scaling: Scaling{Type: "linear", Factor: 4}}
	f("linear", linear, 0, 0.25)
	f("linear", linear, 32, 0.0025)

	// Llama 3.1: 8,192 tokens times 8; waves below 2,048 tokens stay, above
	// 8,192 are stretched by 8.
	llama3 := Rotary{Theta: 500000, Dim: 128, Scaling: Scaling{Type: "llama3", Factor: 8, Original: 8192, LowFreq: 1, HighFreq: 4}}
	f("llama3", llama3, 0, 1)
	f("llama3", llama3, 16, 0.03760603) // 500000^-0.25, a wave of 167 tokens
	// 500000^-0.5 = 0.00141421, a wave of 4,442.88 tokens: 8192/4442.88 =
	// 1.843849 turns, (1.843849-1)/3 = 0.281283 of it kept.
	f("llama3", llama3, 32, 0.00141421356*(0.718717/8+0.281283))
	f("llama3", llama3, 48, 5.3182959e-5/8) // 500000^-0.75, 118,143 tokens
	// YaRN: 2,048 tokens times 16. 32 turns at pair 64·ln(2048/(64π))/ln 10000 =
	// 16.13, down to 16; one turn at 40.21, up to 41; pair 20 has 4/25 of the way.
	yarn := Rotary{Theta: 10000, Dim: 128, Scaling: Scaling{Type: "yarn", Factor: 16, Original: 2048, BetaFast: 32, BetaSlow: 1, Attention: yarnAttention(16, 1)}}
	f("yarn", yarn, 0, 1)
	f("yarn", yarn, 16, 0.1)
	f("yarn", yarn, 20, 0.056234133*(0.84+0.16/16))
	f("yarn", yarn, 41, 0.0027384196/16)
	f("yarn", yarn, 63, 0.00011547820/16)
	if got := yarn.frequencies(nil).scale; math.Abs(float64(got)-1.2772589) > 1e-6 { // 0.1·ln 16 + 1
		t.Errorf("yarn: magnitude %g", got)
	}
	exact := yarn
	exact.Scaling.Exact = true // 20 is 0.160781 of the way from 16.1280 to 40.2104
	f("yarn, not rounded", exact, 20, 0.056234133*(0.839219+0.160781/16))
	divided := plain.frequencies([]float32{0: 2, 63: 1})
	if got := divided.inverse[0]; got != 0.5 {
		t.Errorf("divided by 2: %g", got)
	}
}
