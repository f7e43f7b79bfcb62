package cpu

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terse-llm/terse/kernels"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every task is done once and all are done on return, for callers at once,
// whether the helpers are awake or asleep.
func TestPool(t *testing.T) {
	for _, threads := range []int{1, 2, 5} {
		p := newPool(threads)
		var callers sync.WaitGroup
		for caller := range 3 {
			callers.Go(func() {
				for round := range 300 {
					n := (round*7 + caller) % 40
					counts := make([]atomic.Int32, n)
					p.do(n, kernels.TaskFunc(func(i int) { counts[i].Add(1) }))
					for i := range counts {
						if c := counts[i].Load(); c != 1 {
							t.Errorf("%d threads, %d tasks: task %d done %d times", threads, n, i, c)
						}
					}
					if round%100 == 99 {
						time.Sleep(2 * time.Millisecond) // lets the helpers fall asleep
					}
				}
			})
		}
		callers.Wait()
		p.close()
	}
}

// Tasks may have tasks of their own.
func TestPoolNests(t *testing.T) {
	p := newPool(3)
	defer p.close()
	var done atomic.Int32
	p.do(8, kernels.TaskFunc(func(int) {
		p.do(5, kernels.TaskFunc(func(int) { done.Add(1) }))
	}))
	if n := done.Load(); n != 40 {
		t.Errorf("%d of 40 tasks done", n)
	}
}

// Once it is stopped, nothing more is begun, and what was begun is done on return.
func TestPoolStops(t *testing.T) {
	for _, threads := range []int{1, 3} {
		p := newPool(threads)
		var stop atomic.Bool
		for _, last := range []int32{1, 7, 100} {
			stop.Store(false)
			var begun, done atomic.Int32
			p.until(&stop, 100, kernels.TaskFunc(func(int) {
				if begun.Add(1) == last {
					stop.Store(true)
				}
				done.Add(1)
			}))
			if n := begun.Load(); n != done.Load() || n < last || n >= last+int32(threads) {
				t.Errorf("%d threads, stopped at task %d: %d begun, %d done", threads, last, n, done.Load())
			}
		}
		begun := 0
		p.until(&stop, 5, kernels.TaskFunc(func(int) { begun++ }))
		if begun > 0 {
			t.Errorf("%d threads: %d tasks were begun after the stop", threads, begun)
		}
		p.close()
	}
}

type nothing struct{}

func (nothing) Do(int) {}

// What a parallel region costs: the floor of every operation of a decode step.
func BenchmarkPool(b *testing.B) {
	p := newPool(2)
	defer p.close()
	b.ReportAllocs()
	for b.Loop() {
		p.do(2, nothing{})
	}
}
