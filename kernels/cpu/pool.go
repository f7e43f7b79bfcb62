package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/terse-llm/terse/kernels"
)

// pool is a fixed set of goroutines that do tasks together with whoever has
// them. Several callers may share it: each does its own tasks in any case, and
// the goroutines help whom they find.
//
// A decode step is hundreds of short tasks, so that waking must be quick: a
// goroutine that has nothing to do looks for work for some microseconds before
// it sleeps.
type pool struct {
	helpers []*helper
	jobs    sync.Pool // *job
	wg      sync.WaitGroup
}

// job is one Parallel in progress.
type job struct {
	task kernels.Task
	stop *atomic.Bool // nil, or no more pieces are begun once it is set
	n    int64
	next atomic.Int64 // the next piece to do
	busy atomic.Int32 // helpers that may touch the job
}

func (j *job) work() {
	for i := j.next.Add(1) - 1; i < j.n && !stopped(j.stop); i = j.next.Add(1) - 1 {
		j.task.Do(int(i))
	}
}

func stopped(stop *atomic.Bool) bool { return stop != nil && stop.Load() }

// helper is one goroutine and the place where work is left for it.
type helper struct {
	offer  atomic.Pointer[job]
	asleep atomic.Bool
	wake   chan struct{} // buffered
	closed atomic.Bool
}

func newPool(threads int) *pool {
	p := &pool{jobs: sync.Pool{New: func() any { return new(job) }}}
	for range threads - 1 {
		h := &helper{wake: make(chan struct{}, 1)}
		p.helpers = append(p.helpers, h)
		p.wg.Go(h.run)
	}
	return p
}

// close ends the helpers. No tasks may be running.
func (p *pool) close() {
	for _, h := range p.helpers {
		h.closed.Store(true)
		h.rouse()
	}
	p.wg.Wait()
}

// do does tasks 0 … n-1 and returns when all are done.
func (p *pool) do(n int, t kernels.Task) { p.until(nil, n, t) }

// until is do that begins no more tasks once stop is set.
func (p *pool) until(stop *atomic.Bool, n int, t kernels.Task) {
	if n <= 1 || len(p.helpers) == 0 {
		for i := 0; i < n && !stopped(stop); i++ {
			t.Do(i)
		}
		return
	}
	j := p.jobs.Get().(*job)
	j.task, j.stop, j.n = t, stop, int64(n)
	j.next.Store(0)
	helpers := p.helpers[:min(n-1, len(p.helpers))]
	for _, h := range helpers {
		j.busy.Add(1)
		if !h.offer.CompareAndSwap(nil, j) {
			j.busy.Add(-1) // has an offer already
		} else if h.asleep.Load() {
			h.rouse()
		}
	}
	j.work()
	for _, h := range helpers {
		if h.offer.CompareAndSwap(j, nil) { // too late to help
			j.busy.Add(-1)
		}
	}
	for turn := 0; j.busy.Load() > 0; turn++ {
		pause(turn)
	}
	j.task, j.stop = nil, nil
	p.jobs.Put(j)
}

func (h *helper) rouse() {
	select {
	case h.wake <- struct{}{}:
	default: // is being woken
	}
}

// patience is how often a helper looks for work before it sleeps: some 50 µs.
const patience = 2500

func (h *helper) run() {
	for turn := 0; !h.closed.Load(); turn++ {
		if j := h.offer.Swap(nil); j != nil {
			j.work()
			j.busy.Add(-1)
			turn = 0
			continue
		}
		if turn < patience {
			pause(turn)
			continue
		}
		h.asleep.Store(true)
		if h.offer.Load() == nil && !h.closed.Load() { // else it came in between
			<-h.wake
		}
		h.asleep.Store(false)
		turn = 0
	}
}

// pause waits a moment: mostly on the core, at times letting other goroutines
// have it, which takes a lock that all cores share and so must be rare.
func pause(turn int) {
	if turn%128 == 127 {
		runtime.Gosched()
		return
	}
	for range 64 {
		spin.Load()
	}
}

// spin is read to pass time: a load that the compiler keeps.
var spin atomic.Int32
