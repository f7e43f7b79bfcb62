package bench

import (
	"context"
	"math"
	"slices"
	"time"
)

// Sample is the times of one run of something, over the rounds.
type Sample struct {
	Median, Low, High time.Duration // High and Low are the quartiles
	Min               time.Duration
	Rounds            int
}

// timed is something that is timed in turns with others.
type timed struct {
	run   func()
	runs  int // of a sample
	times []float64
}

// shortest is the length of a sample: below it, the clock and what else the
// machine does weigh too much.
const shortest = 5 * time.Millisecond

// The rounds of a group.
const (
	fewest = 3
	most   = 200
)

// newTimed runs f once, to warm it up, and finds how many runs make a sample.
func newTimed(f func()) *timed {
	f()
	t := &timed{run: f, runs: 1}
	for {
		start := time.Now()
		for range t.runs {
			f()
		}
		took := time.Since(start)
		if took >= shortest {
			return t
		}
		t.runs *= max(2, int(min(1000, shortest/max(1, took)))+1)
	}
}

// rounds times all of them in turns until the budget is spent, at least a few
// times each.
func rounds(ctx context.Context, all []*timed, budget time.Duration) error {
	start := time.Now()
	for round := 0; round < fewest || round < most && time.Since(start) < budget; round++ {
		for _, t := range all {
			if err := ctx.Err(); err != nil {
				return err
			}
			before := time.Now()
			for range t.runs {
				t.run()
			}
			t.times = append(t.times, float64(time.Since(before).Nanoseconds())/float64(t.runs))
		}
	}
	return nil
}

func (t *timed) sample() Sample { return sampleOf(t.times) }

func sampleOf(times []float64) Sample {
	s := slices.Sorted(slices.Values(times))
	at := func(q float64) time.Duration {
		i := q * float64(len(s)-1)
		lo, frac := math.Floor(i), i-math.Floor(i)
		v := s[int(lo)]
		if frac > 0 {
			v += frac * (s[int(lo)+1] - v)
		}
		return time.Duration(math.Round(v))
	}
	return Sample{Median: at(0.5), Low: at(0.25), High: at(0.75), Min: at(0), Rounds: len(s)}
}
