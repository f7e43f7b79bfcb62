package engine

import (
	"context"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// leaver is a sink whose prompt is cancelled in the middle of its first step.
type leaver struct {
	cancel  context.CancelFunc
	stopped chan struct{}
	written int
}

func (l *leaver) Written(int, int, *quant.View) {
	if l.written++; l.written == 1 {
		l.cancel()
		<-l.stopped
	}
}

func (l *leaver) Selected(int, *quant.View) {}

func (l *leaver) Stop() { close(l.stopped) }

// A step that nobody waits for ends at its next layer, its pages are free at
// once, and what it has left half written is not taken for a prefix.
func TestAbandonedStep(t *testing.T) {
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			r := newRig(t, format, func(c *Config) { c.StepTokens = 1000 }).start(t)
			p := prompt(3, 400)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			l := &leaver{cancel: cancel, stopped: make(chan struct{})}
			err := r.Prefill(ctx, request("a", p, 20), l, func(Prefilled) error { return nil })
			if terse.CodeOf(err) != terse.CodeCancelled {
				t.Fatalf("got %v", err)
			}
			if l.written != 1 {
				t.Errorf("%d layers were written after the caller had left", l.written-1)
			}
			for limit := time.Now().Add(10 * time.Second); r.Load().KVUsed > 0 || r.Load().Running > 0; time.Sleep(time.Millisecond) {
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

// A step that somebody else has rows in goes on.
func TestSharedStepIsNotAbandoned(t *testing.T) {
	r := newRig(t, "f16", func(c *Config) { c.StepTokens = 1000 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	l := &leaver{cancel: cancel, stopped: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		done <- r.Prefill(ctx, request("a", prompt(3, 300), 20), l, func(Prefilled) error { return nil })
	}()
	var got []terse.Token
	other := make(chan error, 1)
	go func() {
		var err error
		got, _, err = r.collect(t.Context(), request("b", prompt(4, 100), 20))
		other <- err
	}()
	for len(r.inbox) < 2 { // both are in the first step
		time.Sleep(time.Millisecond)
	}
	r.start(t)
	if err := <-done; terse.CodeOf(err) != terse.CodeCancelled {
		t.Errorf("got %v", err)
	}
	if err := <-other; err != nil {
		t.Fatal(err)
	}
	sameTokens(t, "beside a prompt that was cancelled", got, r.greedy(t, prompt(4, 100), 20))
}
