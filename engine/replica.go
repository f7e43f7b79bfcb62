package engine

import (
	"context"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/sched"
)

// Arrival is the KV of some tokens on its way into the pages of a replica.
type Arrival interface {
	// Fetch waits until all of it is there, and returns the tokens.
	Fetch(ctx context.Context) ([]terse.Token, error)
	// Stop returns when no page is written any more. It is called more than once,
	// perhaps at the same time.
	Stop()
}

// hosting is a replica that the loop knows of.
type hosting struct {
	id      sched.ID
	held    int // tokens
	arrival Arrival
	cancel  context.CancelCauseFunc // of what fetches for it
}

// errUnhosted is how a replica ends whose pages others need, or its own request.
var errUnhosted = &terse.Error{Code: terse.CodeKVMemory, Message: "the replica's pages were needed"}

// ReplicaLease is how long a replica is kept when nothing comes for it any more and
// its request is not said to be over: long enough for the loss of its worker to be
// noticed and the request to come here.
const ReplicaLease = 15 * time.Second

// Host keeps a replica of a request that another worker decodes, from its first
// tokens, whole pages, on, and page by page behind them: begin has the pages of
// tokens [held, n) filled. Where this engine is asked to go on with the request, it
// computes only what the replica does not have. Host returns when nothing comes any
// more; the replica is then kept for ReplicaLease, unless the other side has said
// that the request is over (CodeInvalid), or ctx was cancelled.
func (e *Engine) Host(ctx context.Context, id string, first int, begin func(view *quant.View, held, n int) Arrival) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	page := e.cfg.Runner.Geometry().Format.PageTokens
	if first < page || first%page != 0 || first > e.cfg.MaxContext {
		return invalid("a replica of %d tokens in pages of %d", first, page)
	}
	h := &hosting{id: sched.ID(id), cancel: cancel}
	err := e.do(ctx, func(e *Engine) {
		if old := e.hosted[h.id]; old != nil {
			e.halt(old, &terse.Error{Code: terse.CodeCancelled, Message: "the replica is filled anew"})
			h.held = old.held
		}
		e.hosted[h.id] = h
	})
	for n := first; err == nil; n += page {
		err = e.hostMore(ctx, h, n, begin)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	code := terse.CodeOf(err)
	keep := code != terse.CodeInvalid && code != terse.CodeCancelled && ctx.Err() == nil || code == terse.CodeWorkerLost
	drop := func(e *Engine) { e.release(h) }
	_ = e.do(context.WithoutCancel(ctx), func(e *Engine) { // an engine that has stopped holds nothing
		if keep = keep && h.held > 0; !keep {
			drop(e)
		}
	})
	if keep {
		time.AfterFunc(ReplicaLease, func() { _ = e.send(context.Background(), drop) })
	}
	return err
}

// hostMore has a replica hold the first n tokens.
func (e *Engine) hostMore(ctx context.Context, h *hosting, n int, begin func(view *quant.View, held, n int) Arrival) error {
	var arrival Arrival
	var view *quant.View
	refused := error(nil)
	if err := e.do(ctx, func(e *Engine) {
		t, held, ok := (*kvcache.Table)(nil), 0, e.hosted[h.id] == h
		if ok {
			t, held, ok = e.sched.Host(h.id, n)
		}
		if !ok {
			refused = errUnhosted
			return
		}
		view = &quant.View{}
		e.pages.Stage(t, 0, view)
		view.Staged = held
		arrival = begin(view, held, n)
		h.arrival = arrival
	}); err != nil || refused != nil {
		return orElse(err, refused)
	}
	tokens, err := arrival.Fetch(ctx)
	arrival.Stop()
	if err == nil && len(tokens) != n-view.Staged {
		err = &terse.Error{Code: terse.CodeTransfer, Message: "a replica's pages came with the tokens of others"}
	}
	if err != nil {
		return err
	}
	return orElse(e.do(ctx, func(e *Engine) {
		if e.hosted[h.id] != h {
			refused = errUnhosted
			return
		}
		if refused = e.cfg.Runner.Receive(view).Adopt(n); refused == nil {
			e.sched.Hosted(h.id, tokens)
			h.held, h.arrival = n, nil
		}
	}), refused)
}

func orElse(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// halt ends what fetches for a replica: its pages are not written any more.
func (e *Engine) halt(h *hosting, why error) {
	h.cancel(why)
	if h.arrival != nil {
		h.arrival.Stop()
		h.arrival = nil
	}
}

// unhost forgets a replica whose pages have gone to others.
func (e *Engine) unhost(h *hosting, why error) {
	if h != nil {
		e.halt(h, why)
		delete(e.hosted, h.id)
	}
}

// release frees a replica, if it is still this one.
func (e *Engine) release(h *hosting) {
	if h != nil && e.hosted[h.id] == h {
		e.unhost(h, errUnhosted)
		e.sched.Unhost(h.id)
		e.publishLoad()
	}
}

// maxReplicas bounds the list of replicas that others are told of.
const maxReplicas = 128

func (e *Engine) replicas() []string {
	if len(e.hosted) == 0 {
		return nil
	}
	var ids []string
	for _, id := range e.sched.Replicas() {
		if h := e.hosted[id]; h != nil && h.held > 0 && len(ids) < maxReplicas {
			ids = append(ids, string(id))
		}
	}
	return ids
}

// do has the loop do something, and waits.
func (e *Engine) do(ctx context.Context, c command) error {
	done := make(chan struct{})
	if err := e.send(ctx, func(e *Engine) { defer close(done); c(e); e.publishLoad() }); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-e.closed:
		return errStopped
	}
}

// lending is one Lend that waits for its tokens to be computed.
type lending struct {
	n     int
	ready chan lent // receives one
}

// lent is what a Lend waited for.
type lent struct {
	table  *kvcache.Table
	view   *quant.View
	tokens []terse.Token
	err    error
}

// LendFrom is the first number of tokens, whole pages, that Lend can give of a
// request that is decoded here; 0 for one that is not.
func (e *Engine) LendFrom(ctx context.Context, id string) (n int, err error) {
	err = e.do(ctx, func(e *Engine) { n = e.sched.LendFrom(sched.ID(id)) })
	return n, err
}

// Lend waits until the first n tokens of a request that is decoded here are
// computed, and shows sink their pages, which stay as they are until handover, which
// gets the tokens, has returned and sink has stopped. CodeInvalid says that there is
// no such request, or that it is over.
func (e *Engine) Lend(ctx context.Context, id string, n int, sink Sink, handover func([]terse.Token) error) error {
	l := &lending{n: n, ready: make(chan lent, 1)}
	defer sink.Stop()
	if err := e.do(ctx, func(e *Engine) {
		if s := e.seqs[sched.ID(id)]; s != nil && !s.over {
			s.lendings = append(s.lendings, l)
			e.lendTo(s)
			return
		}
		l.ready <- lent{err: notHere(id)}
	}); err != nil {
		return err
	}
	var got lent
	select {
	case got = <-l.ready:
	case <-ctx.Done():
		got.err = cancelled(ctx)
		// What comes after all is given back by the loop, which is the one to know.
		_ = e.do(context.WithoutCancel(ctx), func(e *Engine) { e.unlend(sched.ID(id), l) })
	case <-e.closed:
		return errStopped
	}
	if got.err != nil {
		return got.err
	}
	defer func() {
		sink.Stop()
		_ = e.do(context.WithoutCancel(ctx), func(e *Engine) { e.sched.Return(got.table) })
	}()
	for layer := range e.cfg.Runner.Geometry().Layers {
		sink.Written(layer, n, got.view)
		if e.cfg.Runner.Geometry().Format.Selects() {
			sink.Selected(layer, got.view)
		}
	}
	return handover(got.tokens)
}

func notHere(id string) *terse.Error { return invalid("request %s is not decoded here", id) }

// lend gives pages to those who wait for them, where they are computed by now.
func (e *Engine) lend() {
	for _, s := range e.seqs {
		if len(s.lendings) > 0 {
			e.lendTo(s)
		}
	}
}

func (e *Engine) lendTo(s *sequence) {
	rest := s.lendings[:0]
	for _, l := range s.lendings {
		t, tokens, ok, err := e.sched.Lend(s.id, l.n)
		if err == nil && !ok {
			rest = append(rest, l)
			continue
		}
		got := lent{table: t, tokens: tokens, err: err}
		if err == nil {
			got.view = &quant.View{}
			e.pages.Stage(t, len(s.req.Prompt)-s.req.Resumed, got.view)
			if err := e.cfg.Runner.Bring(got.view, l.n); err != nil {
				e.sched.Return(t)
				got = lent{err: err}
			}
		}
		l.ready <- got
	}
	clear(s.lendings[len(rest):])
	s.lendings = rest
}

// unlend takes back a lending whose caller has left.
func (e *Engine) unlend(id sched.ID, l *lending) {
	if s := e.seqs[id]; s != nil {
		for i, other := range s.lendings {
			if other == l {
				s.lendings = append(s.lendings[:i], s.lendings[i+1:]...)
				break
			}
		}
	}
	select {
	case got := <-l.ready:
		if got.table != nil {
			e.sched.Return(got.table)
		}
	default:
	}
}

// endLendings says to all who wait for a request's pages that no more will come.
func (s *sequence) endLendings() {
	for _, l := range s.lendings {
		l.ready <- lent{err: notHere(string(s.id))}
	}
	s.lendings = nil
}
