package eval

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// Published values of Wilson's interval at 95 %.
func TestWilson(t *testing.T) {
	f := func(right, n int, lo, hi float64) {
		t.Helper()
		l, h := wilson(right, n)
		if math.Abs(l-lo) > 5e-4 || math.Abs(h-hi) > 5e-4 {
			t.Errorf("%d of %d: %.4f to %.4f, want %.4f to %.4f", right, n, l, h, lo, hi)
		}
	}
	f(0, 10, 0, 0.2775)
	f(10, 10, 0.7225, 1)
	f(5, 10, 0.2366, 0.7634)
	f(81, 263, 0.2553, 0.3662)
}

// Intervals of independent draws hold the truth 95 times of 100; values that
// come in runs give wider ones than values that do not.
func TestMeanMargin(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	held := 0
	for range 400 {
		values := make([]float64, 40*blockPositions)
		for i := range values {
			values[i] = rng.NormFloat64()
		}
		if math.Abs(mean(values)) <= meanMargin(values) {
			held++
		}
	}
	if held < 360 || held > 396 {
		t.Errorf("%d of 400 intervals hold the mean, want about 380", held)
	}

	alone, runs := make([]float64, 40*blockPositions), make([]float64, 40*blockPositions)
	for i := range runs {
		if alone[i] = rng.NormFloat64(); i%blockPositions == 0 {
			runs[i] = rng.NormFloat64()
		} else {
			runs[i] = runs[i-1]
		}
	}
	if a, r := meanMargin(alone), meanMargin(runs); r < 5*a {
		t.Errorf("the margin of runs is %g, of independent values %g", r, a)
	}
	if m := meanMargin([]float64{1, 3}); m != 2 {
		t.Errorf("too few values have a margin of %g, want their range", m)
	}
	if m := tailMargin(alone); m <= 0 || m > 1 {
		t.Errorf("the 99th percentile's margin is %g", m)
	}
}

// A format is compared with f16 case by case.
func TestPaired(t *testing.T) {
	r := &Report{Tasks: []TaskResult{
		{Task: "recall", Format: "f16", Length: 9, Cases: 4, Right: 2, Scores: []float64{1, 1, 0, 0}},
		{Task: "recall", Format: "hq2", Length: 9, Cases: 4, Right: 2, Scores: []float64{1, 0, 1, 0}},
		{Task: "recall", Format: "old", Length: 9, Cases: 4, Right: 1},
	}}
	f := func(format, want string) {
		t.Helper()
		if got := r.answers("recall@9", format); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	f("f16", "2/4 (0.15–0.85)")
	f("hq2", "2/4 (0.15–0.85; +1 −1)")
	f("old", "1/4 (0.05–0.70)")
	if h := strings.Join(r.header(), " "); !strings.Contains(h, "recall@9") {
		t.Error(h)
	}
}
