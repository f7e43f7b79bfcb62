package engine

import (
	"context"
	"sync"

	"github.com/terse-llm/terse"
)

// queue carries a request's outputs from the loop to its consumer. put never
// blocks: a request's outputs are bounded by its own tokens, and a slow consumer
// must not hold up a step.
type queue struct {
	mu    sync.Mutex
	items []terse.Output
	spare []terse.Output  // what was taken before, for reuse
	more  chan struct{}   // holds one token when items is not empty
	ended <-chan struct{} // closed when the loop has ended and puts no more
}

func newQueue(ended <-chan struct{}) *queue {
	return &queue{more: make(chan struct{}, 1), ended: ended}
}

func (q *queue) put(o terse.Output) {
	q.mu.Lock()
	q.items = append(q.items, o)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// take waits for outputs and returns all there are, valid until the next call.
func (q *queue) take(ctx context.Context) ([]terse.Output, error) {
	select {
	case <-q.more:
	case <-ctx.Done():
		return nil, cancelled(ctx)
	case <-q.ended:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	clear(q.spare)
	q.items, q.spare = q.spare[:0], items
	select {
	case <-q.ended:
		if len(items) == 0 { // a command that the loop never came to
			return nil, errStopped
		}
	default:
	}
	return items, nil
}

// drain passes outputs to emit up to and with the last one. A failure is the
// returned error, never an output.
func (q *queue) drain(ctx context.Context, emit func(terse.Output) error) error {
	for {
		items, err := q.take(ctx)
		if err != nil {
			return err
		}
		for _, o := range items {
			if o.Err != nil {
				return o.Err
			}
			if err := emit(o); err != nil || o.Finish != "" {
				return err
			}
		}
	}
}
