package engine

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/terse-llm/terse/quant"
)

// stall is a Sink that keeps the loop in the middle of a step.
type stall struct {
	once             sync.Once
	entered, release chan struct{}
}

func (s *stall) Stop() {}

func (s *stall) Selected(int, *quant.View) {}

func (s *stall) Written(int, int, *quant.View) {
	s.once.Do(func() { close(s.entered) })
	<-s.release
}

// A hand-over is complete when its KV has been sent, whatever the loop computes
// by then: the first token does not wait for the next prompt's step.
func TestHandoverDoesNotWaitForTheNextStep(t *testing.T) {
	r := newRig(t, "f16", nil).start(t)
	next := &stall{entered: make(chan struct{}), release: make(chan struct{})}
	var both sync.WaitGroup
	prefill := func(id string, sink Sink, handover func(Prefilled) error) {
		if err := r.Prefill(context.Background(), request(id, prompt(1, 90), 1), sink, handover); err != nil {
			t.Errorf("prefill %s: %v", id, err)
		}
	}
	returned := make(chan struct{})
	both.Go(func() {
		defer close(returned)
		prefill("first", idle{}, func(Prefilled) error {
			both.Go(func() { prefill("next", next, func(Prefilled) error { return nil }) })
			<-next.entered
			return nil
		})
	})
	select {
	case <-returned:
	case <-time.After(patience):
		t.Error("the hand-over waits for a step of another prompt")
	}
	close(next.release)
	both.Wait()
	for deadline := time.Now().Add(patience); r.Load().KVUsed != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("pages are left after all was handed over: %+v", r.Load())
		}
	}
}

// idle is a Sink that sends nothing.
type idle struct{}

func (idle) Stop()                         {}
func (idle) Written(int, int, *quant.View) {}
func (idle) Selected(int, *quant.View)     {}
