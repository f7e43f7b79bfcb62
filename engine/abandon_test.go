package engine

import (
	"context"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
)

// leaver is a sink whose prompt is cancelled in the middle of its first step.
type leaver struct {
	engine  *Engine
	leave   func()
	many    int // callers that leave
	written int
}

func (l *leaver) Written(int, int, *quant.View) {
	if l.written++; l.written > 1 {
		return
	}
	l.leave()
	for n := 0; n < l.many; time.Sleep(100 * time.Microsecond) {
		l.engine.leaveMu.Lock()
		n = len(l.engine.leaving)
		l.engine.leaveMu.Unlock()
	}
}

func (l *leaver) Selected(int, *quant.View) {}

func (l *leaver) Stop() {}

// A step that nobody waits for ends in its next operation, its pages are free at
// once, and what it has left half written is not taken for a prefix.
func TestAbandonedStep(t *testing.T) {
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			r := newRig(t, format, func(c *Config) { c.StepTokens = 1000 }).start(t)
			p := prompt(3, 400)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l := &leaver{engine: r.Engine, leave: cancel, many: 1}
			err := r.Prefill(ctx, request("a", p, 20), l, func(Prefilled) error { return nil })
			if terse.CodeOf(err) != terse.CodeCancelled {
				t.Fatalf("got %v", err)
			}
			if l.written != 1 {
				t.Errorf("%d layers were written after the caller had left", l.written-1)
			}
			for limit := time.Now().Add(patience); r.Load().KVUsed > 0 || r.Load().Running > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatalf("still held: %+v", r.Load())
				}
			}
			got, last, err := r.collect(t.Context(), request("b", p, 20))
			if err != nil {
				t.Fatal(err)
			}
			if last.Usage.CachedTokens != 0 {
				t.Errorf("%d tokens of the abandoned prompt were reused", last.Usage.CachedTokens)
			}
			sameTokens(t, "after an abandoned step", got, r.greedy(t, p, 20))
		})
	}
}

// watcher is a sink that notes what the engine holds at each layer.
type watcher struct {
	engine *Engine
	loads  []Load
}

func (w *watcher) Written(int, int, *quant.View) { w.loads = append(w.loads, w.engine.Load()) }

func (w *watcher) Selected(int, *quant.View) {}

func (w *watcher) Stop() {}

// A step that somebody else has rows in goes on, without those who have left: what
// they hold is free before it ends, and so is what others held who had no part in it.
func TestLeaversOfASharedStep(t *testing.T) {
	r := newRig(t, "f16", func(c *Config) { c.StepTokens = 1000 })
	arriving, leave := context.WithCancel(t.Context())
	defer leave()
	l := &leaver{engine: r.Engine, leave: leave, many: 2}
	fetching := make(chan struct{})
	var gone [2]chan error
	for i := range gone {
		gone[i] = make(chan error, 1)
	}
	go func() {
		gone[0] <- r.Receive(arriving, request("c", prompt(5, 500), 20), nil, func(ctx context.Context, _ *quant.View, _ int) (Prefilled, error) {
			close(fetching)
			<-ctx.Done()
			return Prefilled{}, cancelled(ctx)
		})
	}()
	running, stop := context.WithCancel(context.Background())
	steps := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		<-began
		steps <- r.Run(running)
	}()
	defer func() { stop(); <-steps }()
	waitFor(t, "a request in the inbox", func() bool { return len(r.inbox) == 1 })
	(<-r.inbox)(r.Engine) // its pages are reserved in a step before
	r.settle(r.sched.Step(r.events, time.Now()))
	r.events = r.events[:0]
	<-fetching

	w := &watcher{engine: r.Engine}
	var first Prefilled
	other := make(chan error, 1)
	go func() {
		other <- r.Prefill(t.Context(), request("b", prompt(4, 100), 20), w, func(p Prefilled) error { first = p; return nil })
	}()
	go func() {
		gone[1] <- r.Prefill(arriving, request("a", prompt(3, 300), 20), l, func(Prefilled) error { return nil })
	}()
	waitFor(t, "two more", func() bool { return len(r.inbox) == 2 }) // both are in the first step
	close(began)
	for _, err := range []error{<-gone[0], <-gone[1]} {
		if terse.CodeOf(err) != terse.CodeCancelled {
			t.Errorf("got %v", err)
		}
	}
	if err := <-other; err != nil {
		t.Fatal(err)
	}
	page := int64(r.cache.PageBytes(kvcache.Exact))
	if last := w.loads[len(w.loads)-1]; l.written != 1 || last.Running != 1 || last.KVUsed != 2*page {
		t.Errorf("%d layers written of who has left; at the end of the step: %+v, a page has %d bytes", l.written, last, page)
	}
	sameTokens(t, "beside a prompt that was cancelled", []terse.Token{first.First}, r.greedy(t, prompt(4, 100), 1))
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Chunks are of a size that takes no longer than a step should, of a page at least.
func TestStepTime(t *testing.T) {
	r := newRig(t, "f16", func(c *Config) { c.StepTime = 50 * time.Millisecond })
	for _, c := range []struct{ rate, want int }{{0, 0}, {100, 64}, {6000, 256}, {1 << 40, 1 << 20}} {
		r.rate = rateMeter{tokens: float64(c.rate), seconds: 1}
		if got := r.stepTokens(); got != c.want {
			t.Errorf("at %d tokens/s a step may have %d tokens, want %d", c.rate, got, c.want)
		}
	}
	w := &watcher{engine: r.Engine}
	r.rate = rateMeter{tokens: 100 * 1e6, seconds: 1e6}
	r.start(t)
	if err := r.Prefill(t.Context(), request("a", prompt(3, 300), 20), w, func(Prefilled) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if want := r.model.Config.Layers * 5; len(w.loads) != want {
		t.Errorf("300 tokens at 100 tokens/s: %d layers of steps, want %d", len(w.loads), want)
	}
}
