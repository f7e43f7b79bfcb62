package transfer

import (
	"context"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Apart asks, before anything is fetched, for second planes as parts of their own:
// From returns when all others are there, and they go on coming until End. It
// reports whether the format has such planes. The view may be filled anew for
// other steps meanwhile; its pages are written until End.
func (f *Fetch) Apart() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := 0
	if f.held > 0 {
		held = f.plan.parts[f.held-1].Page + 1
	}
	p := newPlan(f.client.Geometry, f.plan.n, true)
	if !p.apart {
		return false
	}
	f.plan, f.planes = p, map[int]int{}
	f.view = &quant.View{Geometry: f.view.Geometry, Exact: slices.Clone(f.view.Exact), Coded: slices.Clone(f.view.Coded)}
	f.held = 0
	for _, part := range p.parts {
		if part.Page >= held {
			break
		}
		f.held++
	}
	f.state, f.begun = make([]landing, p.count()), make(chan struct{})
	f.startOver()
	return true
}

// begin is From where second planes may come later.
func (f *Fetch) begin(ctx context.Context, addr string, request []byte) (Result, error) {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	over := make(chan struct{})
	f.mu.Lock()
	f.stopped, f.over, f.anew, f.restarted = stop, over, true, false
	f.startOver() // what another worker sent fits only its own second planes
	f.mu.Unlock()
	f.client.running.Go(func() {
		defer stop()
		defer close(over)
		_, f.why = f.pursue(life, addr, request)
		if f.why != nil && f.Lost != nil && f.hasBegun() && life.Err() == nil {
			f.Lost(f.why)
		}
	})
	select {
	case <-f.begun:
		return f.result(), nil
	case <-over:
		if f.hasBegun() {
			return f.result(), nil
		}
		return f.result(), f.why
	case <-ctx.Done():
		stop()
		<-over
		return f.result(), cancelled(ctx)
	}
}

// restart reports whether to try a worker again that gave up by code: where it does
// not know the transfer any more and decoding has not begun, from the beginning.
func (f *Fetch) restart(code terse.Code) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.plan.apart || f.enough || f.restarted || code != terse.CodeWorkerLost {
		return false
	}
	f.restarted, f.anew = true, true
	f.startOver()
	return true
}

// complete reports whether decoding has begun and all is there.
func (f *Fetch) complete() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.enough && f.left == 0
}

// Rest waits, when From has returned, for what comes later, and says what came in
// all.
func (f *Fetch) Rest(ctx context.Context) (Result, error) {
	select {
	case <-f.over:
		return f.result(), f.why
	case <-ctx.Done():
		return f.result(), cancelled(ctx)
	}
}

func (f *Fetch) hasBegun() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.enough
}

// stop ends what goes on on its own, without waiting for it, and reports whether
// anything may.
func (f *Fetch) stop() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped != nil {
		f.stopped()
	}
	return f.stopped != nil
}

// count books parts that landed as first or later ones. f.mu is held.
func (f *Fetch) count(s span) {
	for n := int(s.first); n < int(s.first+s.count); n++ {
		if !f.plan.later(n) {
			f.first--
			continue
		}
		_, part := f.plan.at(n)
		f.planes[f.plan.parts[part].Page]--
	}
	if f.first == 0 {
		f.signal()
	}
}

// begins notes that decoding may begin, once. f.mu is held.
func (f *Fetch) begins() {
	if f.plan.apart && !f.enough && f.first == 0 && f.done != nil {
		f.enough = true
		close(f.begun)
	}
}

// Missing are the pages, in order, whose second planes have not all come.
func (f *Fetch) Missing() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var pages []int
	for page, n := range f.planes {
		if n > 0 {
			pages = append(pages, page)
		}
	}
	slices.Sort(pages)
	return pages
}

// Bytes is how much has come of second planes.
func (f *Fetch) Bytes() int64 { return f.result().Second }

// Stop is End.
func (f *Fetch) Stop() { f.End() }
