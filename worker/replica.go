package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/transfer"
)

// lendRequest asks the worker that decodes a request for the pages of its first
// tokens, as many as the transfer has, when they are computed.
type lendRequest struct {
	Lend string // the request's ID
	Held int    // tokens of which the asker has everything
}

// lendPrefix is what a lendRequest begins with, and no prefill request.
var lendPrefix = []byte(`{"Lend":`)

// replicated has replicas of a request kept by others from its first token on, until
// stop: the request is over. Where this worker leaves it to others, the replicas are
// not told so: one of those who have them will be asked to go on.
func (w *Worker) replicated(ctx context.Context, job cluster.Job, emit func(terse.Output) error) (_ func(terse.Output) error, stop func()) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var copies sync.WaitGroup
	begun := false
	stop = func() {
		if context.Cause(ctx) != nil && terse.CodeOf(context.Cause(ctx)) == terse.CodeWorkerLost {
			go func() { // the connection's end is what ends them
				copies.Wait()
				cancel()
			}()
			return
		}
		cancel()
		copies.Wait()
	}
	return func(o terse.Output) error {
		if !begun && len(o.Tokens) > 0 && o.Finish == "" {
			begun = true
			others := &holders{}
			for range w.cfg.Replicas {
				copies.Go(func() { w.replicate(life, job.Request.ID, others) })
			}
		}
		return emit(o)
	}, stop
}

// holders are the workers that keep, or refused to keep, replicas of one request.
type holders struct {
	mu   sync.Mutex
	busy []string
}

// pick chooses another decode worker, that with the most memory, and takes it.
func (h *holders) pick(w *Worker) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	view := w.peers.Load()
	if view == nil {
		return "", false
	}
	self := candidate(w.record())
	members := slices.DeleteFunc(view.Members(), func(m cluster.Member) bool {
		return m.ID == w.cfg.ID || !m.Role.Decodes() || route.Difference(candidate(m), self) != "" || slices.Contains(h.busy, m.ID)
	})
	if len(members) == 0 {
		return "", false
	}
	best := slices.MinFunc(members, func(a, b cluster.Member) int {
		return cmp.Or(cmp.Compare(b.KVFree, a.KVFree), cmp.Compare(a.ID, b.ID))
	})
	h.busy = append(h.busy, best.ID)
	return best.ID, true
}

func (h *holders) release(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = slices.DeleteFunc(h.busy, func(other string) bool { return other == id })
}

// retryReplica is how long a worker that keeps no replica is left alone, and how
// often one is looked for where there is none.
const retryReplica = time.Second

// replicate has one replica of a request kept as long as ctx lasts, by whoever can.
func (w *Worker) replicate(ctx context.Context, id string, others *holders) {
	for ctx.Err() == nil {
		target, ok := others.pick(w)
		for late := true; ok && late && ctx.Err() == nil; {
			n, err := w.cfg.Engine.LendFrom(ctx, id)
			if err != nil || n == 0 || w.leaving.Err() != nil {
				return
			}
			err = w.cfg.Conn.Submit(ctx, target, cluster.Job{
				Request: terse.Request{ID: id}, Host: n,
				Prefill: &cluster.Target{WorkerID: w.cfg.ID, DataAddr: w.DataAddr()},
			}, func(terse.Output) error { return nil })
			if ctx.Err() == nil {
				w.log.Debug("a replica is not kept any more", "request", id, "by", target, "tokens", n, "error", err)
			}
			late = terse.CodeOf(err) == terse.CodeTransfer
		}
		select {
		case <-ctx.Done():
		case <-w.leaving.Done(): // nobody is asked any more
			return
		case <-time.After(retryReplica):
		}
		if ok {
			others.release(target)
		}
	}
}

// host keeps a replica of a request that another worker decodes.
func (w *Worker) host(ctx context.Context, job cluster.Job) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.leaving, func() { cancel(&terse.Error{Code: terse.CodeCancelled, Message: "the worker shuts down"}) })()
	id := job.Request.ID
	err := w.cfg.Engine.Host(ctx, id, job.Host, func(view *quant.View, held, n int) engine.Arrival {
		f := w.client.Begin(view, n)
		f.Hold(held)
		return &arrival{worker: w, fetch: f, from: *job.Prefill, ask: lendRequest{Lend: id, Held: held}}
	})
	if err == nil {
		err = fmt.Errorf("BUG: request %s is hosted without an end", id)
	}
	return err
}

// arrival is pages of a replica on their way: engine.Arrival.
type arrival struct {
	worker *Worker
	fetch  *transfer.Fetch
	from   cluster.Target
	ask    lendRequest
}

// Fetch waits for the pages, and returns the tokens that they are of.
func (a *arrival) Fetch(ctx context.Context) ([]terse.Token, error) {
	defer a.fetch.End()
	payload, err := json.Marshal(a.ask)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for pages of request %s: %w", a.ask.Lend, err)
	}
	res, err := a.fetch.From(ctx, a.from.DataAddr, payload)
	if err != nil {
		return nil, err
	}
	var tokens []terse.Token
	if err := json.Unmarshal(res.Done, &tokens); err != nil {
		return nil, &terse.Error{Code: terse.CodeTransfer, Message: fmt.Sprintf("cannot read what worker %s lends: %v", a.from.WorkerID, err)}
	}
	return tokens, nil
}

// Stop ends the writing of pages; Fetch ends by its context.
func (a *arrival) Stop() { a.fetch.Revoke() }

// lend sends another worker the pages that it asks for.
func (w *Worker) lend(ctx context.Context, payload []byte, to *transfer.Sender) error {
	var ask lendRequest
	if err := json.Unmarshal(payload, &ask); err != nil || ask.Held < 0 || ask.Held >= to.Tokens() {
		return &terse.Error{Code: terse.CodeInvalid, Message: fmt.Sprintf("cannot read what is to be lent (%d of %d tokens held): %v", ask.Held, to.Tokens(), err)}
	}
	return w.cfg.Engine.Lend(ctx, ask.Lend, to.Tokens(), to, func(tokens []terse.Token) error {
		done, err := json.Marshal(tokens[ask.Held:])
		if err != nil {
			return fmt.Errorf("cannot encode the tokens of request %s: %w", ask.Lend, err)
		}
		return to.Finish(done)
	})
}
