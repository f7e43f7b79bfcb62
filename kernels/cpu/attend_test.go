package cpu

import (
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
)

func newCache(t testing.TB, format string, n int) *cases.Cache {
	t.Helper()
	c, err := cases.NewCache(cases.Format{Name: format, Calibrated: true}, 2, 64, n, 1)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Over many spans a row's output is the same bits alone, when its spans are
// shared out over the cores, and among others, when they are not.
func TestSpans(t *testing.T) {
	for _, level := range cpu.Levels() {
		many, one := New(3, level), New(1, level)
		for _, f := range []string{"f16", "hq2", "hq3"} {
			c := newCache(t, f, 2*spanTokens+500)
			jobs := c.Jobs(3, 2*splitVectors, 1)
			many.Attend(jobs)
			for i := range jobs {
				j := &jobs[i]
				for _, row := range []int{0, 1, len(j.Limit) - 1} {
					alone, w := *j, j.Group*c.Geometry.HeadDim
					alone.Limit, alone.Q, alone.Out = j.Limit[row:row+1], j.Q[row*w:(row+1)*w], make([]float32, w)
					for _, o := range []*Ops{one, many} {
						o.Attend([]kernels.AttnJob{alone})
						if !slices.Equal(alone.Out, j.Out[row*w:(row+1)*w]) {
							t.Errorf("%v/%s: row %d of head %d differs when it is computed alone on %d cores", level, f, row, i, o.Threads())
						}
					}
				}
			}
		}
		many.Close()
		one.Close()
	}
}

// A decode step's attention allocates nothing.
func TestAttendAllocates(t *testing.T) {
	o := Best(2)
	defer o.Close()
	for _, f := range []string{"f16", "hq3"} {
		jobs := newCache(t, f, 2*spanTokens+500).Jobs(3, 1, 1)
		o.Attend(jobs)
		if n := testing.AllocsPerRun(20, func() { o.Attend(jobs) }); n > 0 {
			t.Errorf("%s: %v allocations", f, n)
		}
	}
}
