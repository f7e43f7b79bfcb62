package sample

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels/cpu/vec"
)

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

// oracle is the distribution a sampler draws from, straight from the definitions
// and without any of the sampler's short cuts.
func oracle(p terse.Sampling, logits []float32, prompt, output []terse.Token) []float64 {
	l := make([]float64, len(logits))
	for i := range l {
		l[i] = float64(logits[i]) + float64(p.LogitBias[terse.Token(i)])
		t := terse.Token(i)
		if r := float64(p.RepetitionPenalty); r > 0 && (slices.Contains(prompt, t) || slices.Contains(output, t)) {
			if l[i] > 0 {
				l[i] /= r
			} else {
				l[i] *= r
			}
		}
		for _, o := range output {
			if o == t {
				l[i] -= float64(p.FrequencyPenalty)
			}
		}
		if slices.Contains(output, t) {
			l[i] -= float64(p.PresencePenalty)
		}
		l[i] /= float64(p.Temperature)
	}
	rank := make([]int, len(l))
	for i := range rank {
		rank[i] = i
	}
	slices.SortStableFunc(rank, func(a, b int) int {
		switch {
		case l[a] > l[b]:
			return -1
		case l[a] < l[b]:
			return 1
		}
		return 0
	})
	probs := make([]float64, len(l))
	softmax := func() (sum float64) {
		for i := range l {
			probs[i] = math.Exp(l[i] - l[rank[0]])
			sum += probs[i]
		}
		for i := range probs {
			probs[i] /= sum
		}
		return sum
	}
	softmax()
	for i := range l {
		if probs[i] < float64(p.MinP)*probs[rank[0]] {
			l[i] = math.Inf(-1)
		}
	}
	if p.TopK > 0 {
		for _, i := range rank[min(p.TopK, len(rank)):] {
			l[i] = math.Inf(-1)
		}
	}
	softmax()
	if p.TopP > 0 && p.TopP < 1 {
		var before float64
		for _, i := range rank {
			if before >= float64(p.TopP) {
				l[i] = math.Inf(-1)
			}
			before += probs[i]
		}
		softmax()
	}
	return probs
}

func randomLogits(seed uint64, n int, spread float64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	l := make([]float32, n)
	for i := range l {
		l[i] = float32(r.NormFloat64() * spread)
	}
	return l
}

var samplings = map[string]terse.Sampling{
	"plain":        {Temperature: 1},
	"hot":          {Temperature: 2},
	"cold":         {Temperature: 0.3},
	"top-k":        {Temperature: 1, TopK: 7},
	"top-k beyond": {Temperature: 1, TopK: 1 << 20},
	"top-p":        {Temperature: 1, TopP: 0.8},
	"top-p broad":  {Temperature: 5, TopP: 0.999},
	"min-p":        {Temperature: 1, MinP: 0.1},
	"all":          {Temperature: 0.8, TopK: 40, TopP: 0.9, MinP: 0.02},
	"top and min":  {Temperature: 1.2, TopP: 0.7, MinP: 0.05},
	"bias":         {Temperature: 1, LogitBias: map[terse.Token]float32{3: 4, 5: -100, -1: 5, 1 << 30: 5}},
	"repetition":   {Temperature: 1, RepetitionPenalty: 1.5},
	"frequency":    {Temperature: 1, FrequencyPenalty: 0.7},
	"presence":     {Temperature: 1, PresencePenalty: 1.1},
	"everything": {Temperature: 0.9, TopK: 50, TopP: 0.95, MinP: 0.01, RepetitionPenalty: 1.2,
		FrequencyPenalty: 0.3, PresencePenalty: 0.2, LogitBias: map[terse.Token]float32{1: 2}},
}

// Evenly spaced random numbers must meet every token as often as the oracle says.
func TestPickFollowsTheDefinition(t *testing.T) {
	prompt, output := []terse.Token{0, 2, 9}, []terse.Token{4, 4, 7, 2}
	for name, p := range samplings {
		for _, spread := range []float64{0.5, 4} {
			logits := randomLogits(11, 300, spread)
			s := New(p, prompt)
			for _, o := range output {
				s.Observe(o)
			}
			const draws = 4_000
			counts := make([]float64, len(logits))
			s.adjust(logits)
			for i := range draws {
				counts[s.pick(logits, (float64(i)+0.5)/draws)]++
			}
			s.restore(logits)
			for i, want := range oracle(p, logits, prompt, output) {
				if got := counts[i] / draws; math.Abs(got-want) > 1.01/draws {
					t.Errorf("%s, spread %v: token %d has %v of the draws, probability %v", name, spread, i, got, want)
				}
			}
		}
	}
}

// The draws of successive tokens are independent draws from the distribution.
func TestDrawsPassChiSquare(t *testing.T) {
	for name, p := range samplings {
		if p.FrequencyPenalty != 0 || p.PresencePenalty != 0 || p.RepetitionPenalty != 0 {
			continue // the distribution changes with every draw
		}
		logits := randomLogits(5, 40, 1)
		probs := oracle(p, logits, nil, nil)
		p.Seed, p.Logprobs = 42, -1
		s := New(p, nil)
		const draws = 20_000
		counts := make([]float64, len(logits))
		for n := range draws {
			token, _ := s.Next(logits, n)
			counts[token]++
		}
		chi, freedom := 0.0, -1.0
		for i, want := range probs {
			if want == 0 {
				require.Zero(t, counts[i], "%s: token %d is impossible", name, i)
				continue
			}
			chi += (counts[i] - want*draws) * (counts[i] - want*draws) / (want * draws)
			freedom++
		}
		// Wilson and Hilferty's approximation; 4 standard deviations.
		limit := freedom * math.Pow(1-2/(9*freedom)+4*math.Sqrt(2/(9*freedom)), 3)
		if freedom > 0 && chi > limit {
			t.Errorf("%s: chi-square %.1f with %v degrees of freedom, limit %.1f", name, chi, freedom, limit)
		}
	}
}

// Random numbers are uniform along a request, across the seeds of neighbouring
// requests, and unrelated between the two.
func TestUniform(t *testing.T) {
	const n, bins = 50_000, 50
	f := func(name string, number func(i uint64) float64) {
		t.Helper()
		counts := make([]float64, bins)
		var lag, prev float64
		for i := range uint64(n) {
			u := number(i)
			if u < 0 || u >= 1 {
				t.Fatalf("%s: %v", name, u)
			}
			counts[int(u*bins)]++
			lag += (u - 0.5) * (prev - 0.5)
			prev = u
		}
		chi := 0.0
		for _, c := range counts {
			chi += (c - n/bins) * (c - n/bins) / (n / bins)
		}
		require.Less(t, chi, 95.0, name) // 49 degrees of freedom: 4.6 standard deviations
		require.Less(t, math.Abs(lag/n*12), 0.02, "%s: serial correlation", name)
	}
	f("counters", func(i uint64) float64 { return uniform(7, i) })
	f("seeds", func(i uint64) float64 { return uniform(i, 0) })
	f("both", func(i uint64) float64 { return uniform(i, i) })
	f("opposite", func(i uint64) float64 { return uniform(i, n-i) })
	f("high bits", func(i uint64) float64 { return uniform(i<<48, 3) })
}

func TestGreedy(t *testing.T) {
	f := func(logits []float32, want terse.Token) {
		t.Helper()
		for _, temperature := range []float32{0, 1e-9, -1, nan} {
			got, _ := New(terse.Sampling{Temperature: temperature, TopK: 3, Seed: 9}, nil).Next(logits, 0)
			require.Equal(t, want, got)
		}
	}
	f([]float32{1, 3, 2}, 1)
	f([]float32{1, 3, 3}, 1) // the lowest of equals
	f([]float32{-inf, -5, nan}, 1)
	f([]float32{nan, inf, inf}, 1)
	f([]float32{nan, -inf}, 0)
	token, _ := New(terse.Sampling{LogitBias: map[terse.Token]float32{2: 2}}, nil).Next([]float32{1, 3, 2}, 0)
	require.EqualValues(t, 2, token, "bias comes before greedy")
	s := New(terse.Sampling{FrequencyPenalty: 0.6}, nil)
	var text []terse.Token
	for n := range 5 {
		token, _ := s.Next([]float32{1, 2}, n)
		text = append(text, token)
	}
	require.Equal(t, []terse.Token{1, 1, 0, 1, 0}, text)
}

// The n-th token depends on the seed, n and the text, and on nothing else.
func TestReplayDrawsTheSame(t *testing.T) {
	p := samplings["everything"]
	p.Seed = 1234
	rows := make([][]float32, 30)
	for i := range rows {
		rows[i] = randomLogits(uint64(i), 100, 1)
	}
	first := New(p, []terse.Token{1, 2})
	var text []terse.Token
	for n, row := range rows {
		token, _ := first.Next(row, n)
		text = append(text, token)
	}
	for from := range rows {
		replay := New(p, []terse.Token{1, 2})
		for _, token := range text[:from] {
			replay.Observe(token)
		}
		token, _ := replay.Next(rows[from], from)
		require.Equal(t, text[from], token, "token %d", from)
	}
	p.Seed++
	other, differ := New(p, []terse.Token{1, 2}), 0
	for n, row := range rows {
		if token, _ := other.Next(row, n); token != text[n] {
			differ++
		}
	}
	require.Greater(t, differ, 10)
}

func TestLogitsAreAsBefore(t *testing.T) {
	p := samplings["everything"]
	p.LogitBias = map[terse.Token]float32{1: 2, 4: -inf, 5: inf}
	logits := randomLogits(3, 50, 2)
	before := slices.Clone(logits)
	s := New(p, []terse.Token{1, 1, 7})
	for n := range 20 {
		s.Next(logits, n)
		require.Equal(t, before, logits)
	}
}

func TestLogprobsAreTheModels(t *testing.T) {
	logits := []float32{1, 2, -inf, 4, 2, nan}
	sum := math.Exp(1) + 2*math.Exp(2) + math.Exp(4)
	lp := func(l float64) float64 { return l - math.Log(sum) }
	p := terse.Sampling{Temperature: 3, TopK: 1, LogitBias: map[terse.Token]float32{0: 100}, Logprobs: 3}
	token, scored := New(p, nil).Next(logits, 0)
	require.EqualValues(t, 0, token)
	require.EqualValues(t, 0, scored.Token)
	require.InDelta(t, lp(1), scored.Logprob.Logprob, 1e-6)
	f := func(got []terse.Logprob, want ...terse.Token) {
		t.Helper()
		require.Len(t, got, len(want))
		for i, g := range got {
			require.Equal(t, want[i], g.Token)
			require.InDelta(t, lp(float64(logits[g.Token])), g.Logprob, 1e-6)
		}
	}
	f(scored.Top, 3, 1, 4)
	f(Score(logits, 1, 2).Top, 3, 1)
	f(Score(logits, 1, 100).Top, 3, 1, 4, 0) // impossible tokens are not listed
	f(Score(logits, 1, 0).Top)
	f(Score(logits, 1, -1).Top)
	require.InDelta(t, lp(2), Score(logits, 4, 0).Logprob.Logprob, 1e-6)
	for _, impossible := range []terse.Token{2, 5, -1, 6} {
		require.EqualValues(t, Floor, Score(logits, impossible, 0).Logprob.Logprob)
	}
	p.Logprobs = -1
	token, scored = New(p, nil).Next(logits, 0)
	require.Equal(t, terse.Scored{Logprob: terse.Logprob{Token: token}}, scored)
}

func TestStrangeLogits(t *testing.T) {
	f := func(logits []float32, want ...terse.Token) {
		t.Helper()
		for name, p := range samplings {
			p.Seed, p.LogitBias, p.Logprobs = 3, nil, 20
			p.RepetitionPenalty, p.FrequencyPenalty, p.PresencePenalty = 0, 0, 0
			s := New(p, nil)
			for n := range 50 {
				token, scored := s.Next(logits, n)
				require.Contains(t, want, token, name)
				for _, l := range append(scored.Top, scored.Logprob) {
					require.True(t, l.Logprob <= 0 && l.Logprob >= Floor, "%s: %v", name, l)
				}
			}
		}
	}
	f([]float32{-inf, nan, 3, nan}, 2)
	f([]float32{inf, 1, inf, nan}, 0, 2)
	f([]float32{-inf, -inf}, 0)
	f([]float32{nan}, 0)
	f([]float32{-math.MaxFloat32, math.MaxFloat32}, 1)
	f([]float32{-inf, -math.MaxFloat32}, 1)
	require.InDelta(t, -math.Ln2, Score([]float32{inf, 1, inf}, 0, 0).Logprob.Logprob, 1e-6)
	require.EqualValues(t, Floor, Score([]float32{inf, 1, inf}, 1, 0).Logprob.Logprob)
	require.EqualValues(t, Floor, Score([]float32{nan, -inf}, 0, 0).Logprob.Logprob)
}

// Sampling parameters come from outside: none may bring the sampler down.
func FuzzNext(f *testing.F) {
	f.Add(float32(1), 5, float32(0.9), float32(0.1), float32(1.1), float32(0.5), uint64(1))
	f.Add(nan, -1, nan, nan, nan, nan, uint64(2))
	f.Add(inf, 0, float32(-1), float32(2), float32(-3), -inf, uint64(3))
	f.Fuzz(func(t *testing.T, temperature float32, topK int, topP, minP, repetition, frequency float32, seed uint64) {
		p := terse.Sampling{Temperature: temperature, TopK: topK, TopP: topP, MinP: minP, RepetitionPenalty: repetition,
			FrequencyPenalty: frequency, Seed: seed, Logprobs: 2, LogitBias: map[terse.Token]float32{2: frequency}}
		s := New(p, []terse.Token{1, 2})
		logits := randomLogits(seed, 20, 3)
		for n := range 5 {
			token, scored := s.Next(logits, n)
			if token < 0 || int(token) >= len(logits) || math.IsNaN(float64(scored.Logprob.Logprob)) {
				t.Fatalf("picked %d with log-probability %v", token, scored.Logprob.Logprob)
			}
		}
	})
}

func TestLargestAgreesWithSorting(t *testing.T) {
	for seed := range uint64(50) {
		logits := randomLogits(seed, 200, 1)
		for i := range logits {
			logits[i] = float32(math.Round(float64(logits[i]) * 4)) // many equals
		}
		var all []candidate
		for i, l := range logits {
			all = append(all, candidate{token: terse.Token(i), logit: l})
		}
		sortBest(all)
		for _, k := range []int{1, 2, 7, 64, 200, 300} {
			require.Equal(t, all[:min(k, 200)], largest(logits, k, nil))
		}
	}
}

// The short cut over groups gives the same, with few and with many equals, and
// with fewer possible tokens than asked for.
func TestLargestOfALongRow(t *testing.T) {
	s := New(terse.Sampling{}, nil)
	for seed := range uint64(20) {
		logits := randomLogits(seed, 5000+int(seed), 1)
		for i := range logits {
			switch {
			case seed%4 == 1:
				logits[i] = float32(math.Round(float64(logits[i]) * 4))
			case seed%4 == 2 && i%70 != 3:
				logits[i] = -inf
			case seed%4 == 3 && i%3 == 0:
				logits[i] = nan
			}
		}
		for _, k := range []int{1, 2, 7, 39} {
			s.largest(logits, k)
			require.Equal(t, largest(logits, k, nil), s.buf)
		}
	}
}

// Which instructions a machine has decides no draw.
func TestLevelsDrawTheSame(t *testing.T) {
	for name, p := range samplings {
		logits := randomLogits(8, 3000, 2)
		var want []terse.Token
		for _, l := range cpu.Levels() {
			s := New(p, nil)
			s.vec = vec.For(l)
			var got []terse.Token
			for n := range 100 {
				token, _ := s.Next(logits, n)
				got = append(got, token)
			}
			if want == nil {
				want = got
			}
			require.Equal(t, want, got, "%s, %v", name, l)
		}
	}
}

func TestNextAllocatesNothing(t *testing.T) {
	for name, p := range samplings {
		p.Logprobs = 5
		logits := randomLogits(1, 1000, 3)
		s := New(p, []terse.Token{1, 2, 3})
		n := 0
		next := func() {
			s.Next(logits, n%200) // the same draws again and again: no new tokens
			n++
		}
		for range 400 {
			next()
		}
		if allocs := testing.AllocsPerRun(200, next); allocs > 0 {
			t.Errorf("%s: %v allocations per token", name, allocs)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for _, name := range []string{"greedy", "plain", "top-k", "top-p", "top-p of flat logits", "min-p", "everything", "logprobs"} {
		b.Run(name, func(b *testing.B) {
			p, spread := samplings[name], 3.0
			p.Logprobs = -1
			switch name {
			case "top-p of flat logits":
				p, spread = samplings["top-p"], 0.5
				p.Logprobs = -1
			case "logprobs":
				p.Logprobs = 5
			}
			logits := randomLogits(1, 128_256, spread)
			s := New(p, nil)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				s.Next(logits, n)
				n++
			}
		})
	}
}
