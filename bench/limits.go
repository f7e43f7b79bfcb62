package bench

import (
	"sync"
	"time"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels/cpu/peak"
)

// Limits are the fastest rates seen, in units a nanosecond: 1e9 bytes or
// operations a second. A rate that the level has no instructions for is 0.
type Limits struct {
	Threads int     `json:"threads"`
	Read    float64 `json:"read_GBps"`              // of memory
	FMA     float64 `json:"fma_Gops"`               // float32
	Int8    float64 `json:"int8_Gops"`              // the better of the next two
	Maddubs float64 `json:"maddubs_Gops,omitempty"` // AVX2's, with its addition
	Dpbusd  float64 `json:"dpbusd_Gops,omitempty"`  // AVX-512 VNNI's
}

// floor is the least time for bytes and operations, and what sets it.
func (l *Limits) floor(bytes, flops, intOps float64) (time.Duration, string) {
	longest, why := 0.0, ""
	for _, c := range []struct {
		amount, rate float64
		why          string
	}{{bytes, l.Read, "memory"}, {flops, l.FMA, "f32"}, {intOps, l.Int8, "int8"}} {
		if c.amount > 0 && c.rate > 0 && c.amount/c.rate > longest {
			longest, why = c.amount/c.rate, c.why
		}
	}
	return time.Duration(longest), why
}

// probe measures the limits of some number of threads, a bit in every round.
type probe struct {
	limits Limits
	parts  []part
}

// part is one rate being probed.
type part struct {
	rate   *float64
	amount float64 // bytes or operations of one run, all threads
	timed  *timed
}

// probeBytes is what one thread reads in a run: more than its caches hold.
const probeBytes = 64 << 20

// probeRounds is the length of a loop of operations: some milliseconds, so that
// starting the other threads does not count.
const probeRounds = 2_000_000

func newProbe(l cpu.Level, threads int, buffers [][]byte) *probe {
	k := peak.For(l)
	p := &probe{limits: Limits{Threads: threads}}
	p.add(&p.limits.Read, float64(threads*probeBytes), together(threads, func(i int) { k.Read(buffers[i]) }))
	for _, c := range []struct {
		rate *float64
		loop peak.Loop
	}{{&p.limits.FMA, k.FMA}, {&p.limits.Maddubs, k.Maddubs}, {&p.limits.Dpbusd, k.Dpbusd}} {
		if c.loop.Run != nil {
			p.add(c.rate, float64(threads*probeRounds*c.loop.Ops), together(threads, func(int) { c.loop.Run(probeRounds) }))
		}
	}
	return p
}

func (p *probe) add(rate *float64, amount float64, run func()) {
	p.parts = append(p.parts, part{rate, amount, newTimed(run)})
}

// update takes the fastest of the rounds so far.
func (p *probe) update() {
	for _, part := range p.parts {
		if len(part.timed.times) > 0 {
			*part.rate = max(*part.rate, part.amount/float64(part.timed.sample().Min))
		}
	}
	p.limits.Int8 = max(p.limits.Maddubs, p.limits.Dpbusd)
}

// together runs f on each of n threads at once and waits for all.
func together(n int, f func(i int)) func() {
	if n == 1 {
		return func() { f(0) }
	}
	return func() {
		var wg sync.WaitGroup
		for i := range n - 1 {
			wg.Go(func() { f(i) })
		}
		f(n - 1)
		wg.Wait()
	}
}
