package ref

import (
	"sync"
	"sync/atomic"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// Ops is the plain Go backend. It implements kernels.Ops and holds no state but
// scratch memory.
type Ops struct {
	threads int
	panels  sync.Pool // *panel
	attends sync.Pool // *attender
}

// New makes a backend that uses threads cores, at least one.
func New(threads int) *Ops {
	return &Ops{
		threads: max(1, threads),
		panels:  sync.Pool{New: func() any { return new(panel) }},
	}
}

// Name is "ref".
func (o *Ops) Name() string { return "ref" }

// Threads is the number of cores in use.
func (o *Ops) Threads() int { return o.threads }

// Parallel does tasks 0 … n-1 over the cores and waits for all of them. They are
// handed out one by one, so they need not be equally long.
func (o *Ops) Parallel(n int, t kernels.Task) {
	workers := min(o.threads, n)
	if workers <= 1 {
		for i := range n {
			t.Do(i)
		}
		return
	}
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			t.Do(i)
		}
	}
	var wg sync.WaitGroup
	for range workers - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
}

// Until is the backend itself, which gives nothing up.
func (o *Ops) Until(*atomic.Bool) kernels.Ops { return o }

// grain is the number of elements below which element-wise work is not worth
// another goroutine.
const grain = 1 << 14

// split runs f over [0, n) in ranges, each of at least grain elements where an
// item has width of them.
func (o *Ops) split(n, width int, f func(lo, hi int)) {
	step := max(1, grain/max(1, width), (n+4*o.threads-1)/(4*o.threads))
	o.Parallel((n+step-1)/step, kernels.TaskFunc(func(i int) { f(i*step, min(n, (i+1)*step)) }))
}

// Store writes rows of K and V, from token tok of the page on.
func (o *Ops) Store(g *quant.Geometry, page []byte, tok int, k, v []float32) {
	g.PutExact(page, tok, k, v)
}

// Encode codes a page.
func (o *Ops) Encode(g *quant.Geometry, a quant.EncodeArgs) { g.Encode(a) }
