package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/sched"
)

// command is something the loop does between steps.
type command func(*Engine)

// Sink watches a prompt being computed for another worker.
type Sink interface {
	// Written is told, from the engine's loop, that the first tokens of a layer
	// are in view's pages. It must return at once. The pages that a hand-over
	// needs stay as they are until Stop returns.
	Written(layer, tokens int, view *quant.View)
	// Selected is told, likewise, that of a prompt that is computed a layer's
	// important tokens have got their second planes, in formats that Select.
	Selected(layer int, view *quant.View)
	// Stop is called once, however the prefill ends, and returns when nothing
	// reads the pages any more.
	Stop()
}

// Generate computes the prompt and generates here. emit gets every output in
// order, the last (with Finish) included; an error it returns cancels.
func (e *Engine) Generate(ctx context.Context, req *terse.Request, emit func(terse.Output) error) error {
	s := e.newSequence(req, sched.ModeLocal)
	if err := e.add(ctx, s); err != nil {
		return err
	}
	defer e.forget(s)
	return s.out.drain(ctx, emit)
}

// Prefilled is a prompt computed for another worker.
type Prefilled struct {
	First  terse.Token
	Score  terse.Scored // where Sampling.Logprobs asks for it
	Cached int          // prompt tokens reused from the prefix index
	Timing terse.Timing // Queue, Prefill, Quantise
	Planes Planes       `json:"-"` // second planes that are still to come, nil for none
}

// Planes is second planes on their way to the pages of a prompt that is decoded
// from already.
type Planes interface {
	// Missing are the pages, in order, whose second planes have not all come.
	Missing() []int
	// Bytes is how much has come.
	Bytes() int64
	// Stop returns when no page is written any more. It is called more than once,
	// perhaps at the same time.
	Stop()
}

// Prefill computes req's prompt, samples its first token and then calls
// handover; the pages stay until that has returned and sink has stopped. After a
// hand-over it returns at once: the next prompt's step, which may be running by
// then, must not hold up the first token.
func (e *Engine) Prefill(ctx context.Context, req *terse.Request, sink Sink, handover func(Prefilled) error) (err error) {
	s := e.newSequence(req, sched.ModePrefill)
	s.sink = sink
	if err := e.add(ctx, s); err != nil {
		return err
	}
	defer func() {
		sink.Stop() // first: who has left may lose the pages at once
		e.leave(s)
		if err != nil { // it may be in the middle of a step
			e.await(s.gone)
		}
	}()
	var p Prefilled
	err = s.out.drain(ctx, func(o terse.Output) error {
		if len(o.Tokens) > 0 {
			p.First = o.Tokens[0]
		}
		if len(o.Scores) > 0 {
			p.Score = o.Scores[0]
		}
		if o.Usage != nil {
			p.Cached, p.Timing = o.Usage.CachedTokens, *o.Timing
		}
		return nil
	})
	if err != nil {
		return err
	}
	return handover(p)
}

// Receive reserves pages for req's prompt, lets fetch fill them from another
// worker, and generates from the first token that fetch returns. The pages of
// the first held tokens, a prefix of whole pages, are filled already; others may
// be reading them, and fetch must not write them. What fetch returns as timing
// (all parts up to the hand-over) becomes part of the last output's.
func (e *Engine) Receive(ctx context.Context, req *terse.Request, emit func(terse.Output) error,
	fetch func(ctx context.Context, view *quant.View, held int) (Prefilled, error)) error {
	s := e.newSequence(req, sched.ModeRemote)
	if err := e.add(ctx, s); err != nil {
		return err
	}
	defer e.forget(s)
	r, err := s.awaitPages(ctx)
	if err != nil {
		return err
	}
	first, err := fetch(ctx, r.view, r.held)
	if err != nil {
		return err
	}
	if first.Planes != nil {
		defer first.Planes.Stop()
	}
	ready := time.Now()
	if err := e.send(ctx, func(e *Engine) { e.start(s, first, ready) }); err != nil {
		return err
	}
	return s.out.drain(ctx, emit)
}

// awaitPages waits until the scheduler has reserved pages, or refused.
func (s *sequence) awaitPages(ctx context.Context) (reservation, error) {
	select {
	case r := <-s.reserved:
		return r, nil
	case <-s.out.more: // refused or stopped: there is nothing else to say yet
		s.out.more <- struct{}{}
		err := s.out.drain(ctx, func(terse.Output) error { return nil })
		if err == nil {
			err = fmt.Errorf("BUG: request %s ended before its pages were reserved", s.id)
		}
		return reservation{}, err
	case <-ctx.Done():
		return reservation{}, cancelled(ctx)
	case <-s.out.ended:
		return reservation{}, errStopped
	}
}

// start puts a remote sequence whose KV is complete into decoding.
func (e *Engine) start(s *sequence, p Prefilled, ready time.Time) {
	s.planes = p.Planes
	if s.over || e.seqs[s.id] != s {
		s.stopPlanes()
		return
	}
	e.takeAll() // what came to a page twice, too: its second planes
	reception := s.reception
	s.reception, s.view.Came = nil, nil
	if err := reception.Adopt(len(s.req.Prompt)); err != nil {
		e.cfg.Logger.Error("a prompt could not be taken over", "error", err)
		s.finish(terse.FinishError, terse.AsError(err))
		e.events = append(e.events, sched.KVFailed{ID: s.id})
		return
	}
	s.sampler.Observe(p.First)
	s.timing.Prefill, s.timing.Quantise = p.Timing.Prefill, p.Timing.Quantise
	s.timing.Queue += p.Timing.Queue
	s.timing.Transfer, s.timing.TransferTotal, s.timing.KVExposed = p.Timing.Transfer, p.Timing.TransferTotal, p.Timing.KVExposed
	s.timing.KVBytes, s.timing.KVSecond, s.timing.KVBytesF16 = p.Timing.KVBytes, p.Timing.KVSecond, p.Timing.KVBytesF16
	s.timing.KVBytesHeld = p.Timing.KVBytesHeld
	s.timing.Pack, s.timing.Unpack = p.Timing.Pack, p.Timing.Unpack
	s.timing.PrefillWorker, s.timing.Retries = p.Timing.PrefillWorker, p.Timing.Retries
	s.cached = p.Cached
	s.timing.Planes = p.Timing.Planes
	s.timing.Wait = time.Since(ready)
	s.awaitPlanes(len(s.req.Prompt))
	if s.emitToken(p.First, p.Score) {
		s.finish(s.reason, nil)
		e.events = append(e.events, sched.KVFailed{ID: s.id}) // nothing to decode: free the pages
		return
	}
	e.events = append(e.events, sched.KVReady{ID: s.id, First: p.First, Partial: s.planes != nil})
}

// add checks a request and hands it to the loop.
func (e *Engine) add(ctx context.Context, s *sequence) error {
	if err := e.check(s.req); err != nil {
		return err
	}
	return e.send(ctx, func(e *Engine) {
		if e.seqs[s.id] != nil {
			s.finish(terse.FinishError, invalid("request id %s is already running", s.id))
			return
		}
		if s.left.Load() {
			return // and was let go of
		}
		e.seqs[s.id] = s
		e.events = append(e.events, sched.Add{
			ID: s.id, Prompt: s.req.Prompt, MaxTokens: s.req.MaxTokens, Mode: s.mode,
			PromptScores: s.req.Sampling.PromptLogprobs >= 0,
			Resumed:      s.req.Resumed, Reuse: s.req.Reused,
		})
	})
}

// check refuses what can never be computed.
func (e *Engine) check(req *terse.Request) error {
	if len(req.Prompt) == 0 {
		return invalid("the prompt is empty: give at least one token")
	}
	vocab := e.cfg.Runner.Config().VocabSize
	for i, t := range req.Prompt {
		if t < 0 || int(t) >= vocab {
			return invalid("token %d at position %d is outside the model's vocabulary of %d", t, i, vocab)
		}
	}
	if req.MaxTokens < 0 {
		return invalid("max_tokens is %d: it cannot be negative", req.MaxTokens)
	}
	return nil
}

func invalid(format string, args ...any) *terse.Error {
	return &terse.Error{Code: terse.CodeInvalid, Message: fmt.Sprintf(format, args...)}
}
