package ref

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
)

// The order of the tiles matters to rounding only, and the number of cores to
// nothing.
func TestAttendOrder(t *testing.T) {
	for fi, f := range cases.Formats() {
		whole := newJob(t, f, 64, 333, 3, 45, uint64(fi))
		New(2).Attend([]kernels.AttnJob{whole})
		shuffled := whole
		shuffled.Tiles, shuffled.Out = slices.Clone(whole.Tiles), make([]float32, len(whole.Out))
		New(1).Attend([]kernels.AttnJob{shuffled})
		if !slices.Equal(shuffled.Out, whole.Out) {
			t.Fatalf("%v: one core and two differ", f)
		}
		r := rand.New(rand.NewPCG(5, 5))
		r.Shuffle(len(shuffled.Tiles), func(a, b int) {
			shuffled.Tiles[a], shuffled.Tiles[b] = shuffled.Tiles[b], shuffled.Tiles[a]
		})
		New(1).Attend([]kernels.AttnJob{shuffled})
		for i, x := range shuffled.Out {
			if math.Abs(float64(x-whole.Out[i])) > 2e-6 {
				t.Fatalf("%v: output %d is %g with tiles shuffled, %g in order", f, i, x, whole.Out[i])
			}
		}
	}
}

// newJob is the attention of the last rows of n tokens in one KV head.
func newJob(t testing.TB, f cases.Format, d, n, group, rows int, seed uint64) kernels.AttnJob {
	t.Helper()
	c, err := cases.NewCache(f, 1, d, n, seed)
	if err != nil {
		t.Fatal(err)
	}
	return c.Jobs(group, rows, seed)[0]
}

// States of disjoint tokens merge to the same attention in any order.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		parts := make([]State, 5)
		for i := range parts {
			parts[i] = State{Top: float32(r.NormFloat64() * 30), Sum: r.Float32()*10 + 1, Acc: make([]float32, 8)}
			for c := range parts[i].Acc {
				parts[i].Acc[c] = float32(r.NormFloat64()) * parts[i].Sum
			}
		}
		parts[3].Sum = 0 // empty: whatever Top and Acc say
		merged := func(order []int) []float32 {
			s := State{Top: float32(math.Inf(-1)), Acc: make([]float32, 8)}
			for _, i := range order {
				s.Merge(parts[i])
			}
			out := make([]float32, 8)
			s.Finish(out)
			return out
		}
		want, got := merged([]int{0, 1, 2, 3, 4}), merged([]int{3, 4, 2, 0, 1})
		for c := range want {
			if math.Abs(float64(want[c]-got[c])) > 1e-5 {
				t.Fatalf("channel %d: %g in one order, %g in another", c, want[c], got[c])
			}
		}
	}
}

func TestExpNeg(t *testing.T) {
	f := func(x float32) {
		t.Helper()
		want := math.Exp(float64(x))
		if got := float64(expNeg(x)); math.Abs(got-want) > 2.5e-7*want {
			t.Errorf("e^%g = %g, want %g", x, got, want)
		}
	}
	for x := float32(0); x > -87; x -= 0.00137 {
		f(x)
	}
	if got := expNeg(float32(math.Inf(-1))); got != 0 {
		t.Errorf("e^-Inf = %g", got)
	}
	if got := expNeg(-1000); got != 0 {
		t.Errorf("e^-1000 = %g", got)
	}
	if got := expNeg(float32(math.NaN())); got == got {
		t.Errorf("e^NaN = %g: a NaN must not be hidden", got)
	}
}
