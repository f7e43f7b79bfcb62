package sample

import (
	"math"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
)

var inf = float32(math.Inf(1))

func TestGreedy(t *testing.T) {
	f := func(want terse.Token, logits ...float32) {
		t.Helper()
		s := New(terse.Sampling{Logprobs: -1}, nil)
		if got, _ := s.Next(logits, 0); got != want {
			t.Errorf("%v: got %d, want %d", logits, got, want)
		}
	}
	nan := float32(math.NaN())
	f(2, 1, 2, 3)
	f(1, 1, 3, 3) // the lowest id on ties
	f(1, nan, -5, nan)
	f(0, nan, nan)
	f(2, -inf, -inf, -1)
	f(1, 0, inf, 2)
}

func TestPenaltiesAndBias(t *testing.T) {
	f := func(o terse.Sampling, prompt, output []terse.Token, want terse.Token, logits ...float32) {
		t.Helper()
		o.Logprobs = -1
		s := New(o, prompt)
		for _, x := range output {
			s.Observe(x)
		}
		before := slices.Clone(logits)
		if got, _ := s.Next(logits, 0); got != want {
			t.Errorf("%+v: got %d, want %d", o, got, want)
		}
		if !slices.Equal(before, logits) {
			t.Error("the caller's logits changed")
		}
	}
	f(terse.Sampling{LogitBias: map[terse.Token]float32{0: 5, 99: 1}}, nil, nil, 0, 1, 2, 3)
	f(terse.Sampling{RepetitionPenalty: 2}, []terse.Token{2}, nil, 1, 1, 2, 3)           // 3/2 < 2
	f(terse.Sampling{RepetitionPenalty: 2}, nil, []terse.Token{2}, 1, -3, -2, -1.5)      // -1.5*2 < -2
	f(terse.Sampling{PresencePenalty: 1.5}, []terse.Token{2}, nil, 2, 1, 2, 3)           // the prompt does not count
	f(terse.Sampling{PresencePenalty: 1.5}, nil, []terse.Token{2}, 1, 1, 2, 3)           // 3-1.5 < 2
	f(terse.Sampling{FrequencyPenalty: 0.6}, nil, []terse.Token{2}, 2, 1, 2, 3)          // 3-0.6
	f(terse.Sampling{FrequencyPenalty: 0.6}, nil, []terse.Token{2, 2}, 1, 1, 2, 3)       // 3-1.2
	f(terse.Sampling{RepetitionPenalty: 1.5}, []terse.Token{500}, nil, 2, 1, 2, 3)       // ids beyond the row
	f(terse.Sampling{FrequencyPenalty: -9}, nil, []terse.Token{0}, 0, 1, 2, 3)           // negative rewards
	f(terse.Sampling{PresencePenalty: 1, FrequencyPenalty: 1}, nil, nil, 2, 1, 2, 3)     // nothing generated yet
	f(terse.Sampling{LogitBias: map[terse.Token]float32{2: -100}}, nil, nil, 1, 1, 2, 3) // a ban
}

// counts draws n tokens, each with its own counter.
func counts(o terse.Sampling, logits []float32, n int) []int {
	o.Logprobs = -1
	got := make([]int, len(logits))
	s := New(o, nil)
	for i := range n {
		token, _ := s.Next(logits, i)
		got[token]++
	}
	return got
}

// Draws follow the softmax: chi-square of 4 degrees of freedom under its 99.99th
// percentile, for fixed seeds.
func TestDistribution(t *testing.T) {
	logits := []float32{0, 1, 2, 0.5, -1}
	const n = 20000
	for _, temperature := range []float32{0.5, 1, 2} {
		var p [5]float64
		sum := 0.0
		for i, v := range logits {
			p[i] = math.Exp(float64(v / temperature))
			sum += p[i]
		}
		chi := 0.0
		for i, c := range counts(terse.Sampling{Temperature: temperature, Seed: 7}, logits, n) {
			want := n * p[i] / sum
			chi += (float64(c) - want) * (float64(c) - want) / want
		}
		if chi > 23.5 {
			t.Errorf("temperature %g: chi-square %.1f", temperature, chi)
		}
	}
}

func TestCuts(t *testing.T) {
	logits := []float32{float32(math.Log(0.5)), float32(math.Log(0.3)), float32(math.Log(0.15)), float32(math.Log(0.05))}
	f := func(o terse.Sampling, want int) {
		t.Helper()
		o.Temperature = 1
		got := counts(o, logits, 3000)
		for i, c := range got {
			if (c > 0) != (i < want) {
				t.Errorf("%+v: counts %v, want the first %d", o, got, want)
				return
			}
		}
	}
	f(terse.Sampling{}, 4)
	f(terse.Sampling{TopK: 2}, 2)
	f(terse.Sampling{TopK: 9}, 4)
	f(terse.Sampling{TopP: 0.79}, 2)
	f(terse.Sampling{TopP: 0.81}, 3)
	f(terse.Sampling{TopP: 0.01}, 1)
	f(terse.Sampling{MinP: 0.2}, 3)
	f(terse.Sampling{MinP: 0.7}, 1)
	f(terse.Sampling{TopK: 3, TopP: 0.6}, 2) // of the three left: 0.53, 0.32, 0.16
}

// The n-th draw depends on seed and n only.
func TestDrawsByCounter(t *testing.T) {
	logits := make([]float32, 50)
	o := terse.Sampling{Temperature: 1, Seed: 3, Logprobs: -1}
	a, b := New(o, nil), New(o, nil)
	var order []terse.Token
	for n := range 30 {
		token, _ := a.Next(logits, n)
		order = append(order, token)
	}
	for n := 29; n >= 0; n-- {
		if token, _ := b.Next(logits, n); token != order[n] {
			t.Fatalf("draw %d: %d forwards, %d backwards", n, order[n], token)
		}
	}
	o.Seed = 4
	c := New(o, nil)
	same := 0
	for n := range 30 {
		if token, _ := c.Next(logits, n); token == order[n] {
			same++
		}
	}
	if same > 5 {
		t.Errorf("another seed draws %d of 30 tokens alike", same)
	}
}

func TestScore(t *testing.T) {
	s := Score([]float32{0, 1, 2, 1, -inf, float32(math.NaN())}, 1, 3)
	sum := math.Log(1 + 2*math.E + math.E*math.E)
	near := func(got float32, want float64) bool { return math.Abs(float64(got)-want) < 1e-6 }
	if !near(s.Logprob.Logprob, 1-sum) || s.Token != 1 {
		t.Errorf("token's own: %+v", s)
	}
	if len(s.Top) != 3 || s.Top[0].Token != 2 || s.Top[1].Token != 1 || s.Top[2].Token != 3 || !near(s.Top[0].Logprob, 2-sum) {
		t.Errorf("top: %+v", s.Top)
	}
	if s := Score([]float32{0, -inf}, 1, 0); s.Logprob.Logprob != -math.MaxFloat32 || s.Top != nil {
		t.Errorf("impossible token: %+v", s)
	}
	if s := Score([]float32{0, 1}, 0, 9); len(s.Top) != 2 {
		t.Errorf("more asked than there are: %+v", s.Top)
	}
}

// A step in steady state allocates nothing.
func TestNoAllocation(t *testing.T) {
	logits := make([]float32, 1000)
	for i := range logits {
		logits[i] = float32(i%37) / 9
	}
	for _, o := range []terse.Sampling{
		{Logprobs: -1},
		{Logprobs: 5, Temperature: 0.8, TopP: 0.9, TopK: 40, MinP: 0.01},
		{Logprobs: 0, Temperature: 1, RepetitionPenalty: 1.1, PresencePenalty: 0.1, FrequencyPenalty: 0.1},
	} {
		s := New(o, []terse.Token{1, 2, 3})
		for n := range 2000 {
			s.Next(logits, n)
		}
		n := 0
		if a := testing.AllocsPerRun(100, func() { s.Next(logits, n); n++ }); a != 0 {
			t.Errorf("%+v: %g allocations a token", o, a)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	logits := make([]float32, 32768)
	for i := range logits {
		logits[i] = float32(mix(uint64(i))%1000) / 100
	}
	for name, o := range map[string]terse.Sampling{
		"greedy": {Logprobs: -1},
		"top-p":  {Logprobs: -1, Temperature: 0.8, TopP: 0.95},
	} {
		b.Run("vocab=32768/"+name, func(b *testing.B) {
			s := New(o, nil)
			for n := 0; b.Loop(); n++ {
				s.Next(logits, n)
			}
		})
	}
}
