package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/transfer"
)

// servePrefill computes a prompt for the decode worker at the other end and
// streams its KV.
func (w *Worker) servePrefill(ctx context.Context, payload []byte, to *transfer.Sender) ([]byte, error) {
	var req terse.Request
	if err := json.Unmarshal(payload, &req); err != nil {
		return nil, &terse.Error{Code: terse.CodeInvalid, Message: fmt.Sprintf("cannot read the prefill request: %v", err)}
	}
	s := newStreamer(w.cfg.Geometry, len(req.Prompt), to)
	stop := context.AfterFunc(ctx, to.Abort)
	defer stop()
	var done []byte
	err := w.cfg.Engine.Prefill(ctx, &req, s, func(p engine.Prefilled) error {
		if err := s.wait(); err != nil {
			return err
		}
		var err error
		done, err = json.Marshal(p)
		return err
	})
	return done, err
}

// streamer sends a prompt's pages, layer by layer, on a goroutine of its own:
// the engine's loop only notes what is written.
type streamer struct {
	to       *transfer.Sender
	progress *transfer.Progress

	mu      sync.Mutex
	notes   []note
	stopped bool
	err     error
	wake    chan struct{}
	exited  chan struct{}
}

// note says that the first tokens of a layer are written in view's pages.
type note struct {
	layer, tokens int
	view          *quant.View
}

func newStreamer(g *quant.Geometry, n int, to *transfer.Sender) *streamer {
	s := &streamer{
		to: to, progress: transfer.NewProgress(g, n),
		wake: make(chan struct{}, 1), exited: make(chan struct{}),
	}
	go s.run()
	return s
}

// Written implements engine.Sink.
func (s *streamer) Written(layer, tokens int, view *quant.View) {
	s.mu.Lock()
	s.notes = append(s.notes, note{layer, tokens, view})
	s.mu.Unlock()
	s.poke()
}

// Stop implements engine.Sink.
func (s *streamer) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.poke()
	<-s.exited
}

func (s *streamer) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wait returns when everything is sent, or why it is not.
func (s *streamer) wait() error {
	<-s.exited
	return s.err
}

// run ends when all is sent, a send failed, or Stop was called.
func (s *streamer) run() {
	defer close(s.exited)
	for !s.progress.Done() {
		<-s.wake
		s.mu.Lock()
		notes, stopped := s.notes, s.stopped
		s.notes = nil
		s.mu.Unlock()
		if stopped {
			s.err = context.Canceled
			return
		}
		for _, n := range notes {
			if err := s.to.Send(n.layer, n.view, s.progress.Ready(n.layer, n.tokens)); err != nil {
				s.err = &terse.Error{Code: terse.CodeTransfer, Message: err.Error()}
				return
			}
		}
	}
}
