package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/sched"
)

// Config is everything an engine is made of. Runner is required; zero numbers
// take the defaults that sched documents.
type Config struct {
	Runner     model.Runner // of this engine alone
	KVMemory   int64        // bytes for the KV cache, both kinds of pages
	MaxSeqs    int          // sequences in flight
	StepTokens int          // tokens of one step: the prefill chunk
	MaxWaiting int          // requests that may wait
	MaxContext int          // prompt and answer together; 0 = the model's
	// StepTime is how long a step should take at most, where its runner does not
	// look at who leaves meanwhile: prompts are computed in chunks of a size that
	// takes no longer, of a page at least. 0 = whatever StepTokens take.
	StepTime time.Duration
	Logger   *slog.Logger
}

// Engine is one running engine. Its methods are safe for concurrent use.
type Engine struct {
	cfg    Config
	inbox  chan command
	closed chan struct{} // closed when Run returned
	loadMu sync.Mutex
	load   Load

	hosted map[sched.ID]*hosting // by the loop; replicas

	leaveMu sync.Mutex
	leaving []*sequence   // whose callers have gone
	bell    chan struct{} // holds one token when there are some, or some of came

	cameMu sync.Mutex
	came   map[*sequence][]quant.Piece // of prompts on their way to another memory

	// Owned by Run's goroutine.
	cache       *kvcache.Cache
	pages       model.Pages
	sched       *sched.Scheduler
	batch       model.Batch
	afterAttend func(layer int) // showSecond
	afterLayer  func(layer int) // show
	interrupt   model.Interrupt // of the step that runs; anybody may raise it
	seqs        map[sched.ID]*sequence
	events      []sched.Event
	sampled     []sched.Sampled // what the events of this step point to
	plan        sched.Plan      // being run
	rate        rateMeter
}

// Load is how busy an engine is.
type Load struct {
	Running, Waiting int
	WaitingTokens    int      // prompt tokens that are still to be computed here
	KVUsed, KVTotal  int64    // bytes
	PrefillRate      float64  // prompt tokens per second, recent; 0 before the first
	PrefixQueries    int64    // prompt tokens looked up in the prefix index, since the start
	PrefixHits       int64    // and found
	Replicas         []string // requests that replicas are here of, the oldest first
}

// errStopped is what requests get from an engine that has stopped.
var errStopped = &terse.Error{Code: terse.CodeWorkerLost, Message: "the worker is shutting down"}

// errLeft is what a request ends with whose caller has gone.
var errLeft = &terse.Error{Code: terse.CodeCancelled, Message: "the request was cancelled"}

// New prepares an engine; nothing runs before Run.
func New(c Config) (*Engine, error) {
	if most := c.Runner.Config().MaxContext; c.MaxContext == 0 || c.MaxContext > most {
		c.MaxContext = most
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	cache, err := kvcache.New(c.Runner.Geometry(), c.KVMemory)
	if err != nil {
		return nil, err
	}
	pages, err := c.Runner.Pages(cache)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		cfg: c, inbox: make(chan command, 64), closed: make(chan struct{}), bell: make(chan struct{}, 1),
		cache: cache, pages: pages, seqs: make(map[sched.ID]*sequence), hosted: make(map[sched.ID]*hosting),
		came: make(map[*sequence][]quant.Piece),
		sched: sched.New(sched.Config{
			Cache: cache, MaxSeqs: c.MaxSeqs, StepTokens: c.StepTokens,
			MaxWaiting: c.MaxWaiting, MaxContext: c.MaxContext,
		}),
	}
	e.afterLayer = e.show
	e.interrupt.Left, e.interrupt.Looked = e.hasLeft, e.lookedUp
	if c.Runner.Geometry().Format.Selects() {
		e.afterAttend = e.showSecond
	}
	e.publishLoad()
	return e, nil
}

// MaxContext is the most tokens of prompt and answer together.
func (e *Engine) MaxContext() int { return e.cfg.MaxContext }

// Load is a recent snapshot.
func (e *Engine) Load() Load {
	e.loadMu.Lock()
	defer e.loadMu.Unlock()
	return e.load
}

// Run is the engine: it returns when ctx ends, after failing what still ran.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.closed)
	defer e.failAll(errStopped)
	busy := false
	for e.collect(ctx, busy) {
		e.sched.Limit(e.stepTokens())
		plan := e.sched.Step(e.events, time.Now())
		e.events, e.sampled = e.events[:0], slices.Grow(e.sampled[:0], len(plan.Rows))
		busy = len(plan.Rows) > 0
		e.settle(plan)
		result, err := e.run(plan)
		if errors.Is(err, model.ErrAbandoned) {
			e.abandon(plan)
			continue
		}
		if err != nil {
			e.fail(plan, err)
			continue
		}
		e.commit(plan, result)
		e.publishLoad()
	}
	return nil
}

// collect turns waiting commands into events; when nothing is being computed it
// waits for one. It reports false when the engine is to stop.
func (e *Engine) collect(ctx context.Context, busy bool) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case c := <-e.inbox:
			c(e)
			continue
		default:
		}
		e.partWithAll()
		e.takeAll()
		if busy || len(e.events) > 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case c := <-e.inbox:
			c(e)
		case <-e.bell:
		}
	}
}

// run computes the plan's rows. The result has a row for each that wants one, in
// plan order.
func (e *Engine) run(plan sched.Plan) (model.Result, error) {
	if len(plan.Rows) == 0 {
		return model.Result{}, nil
	}
	b := &e.batch
	b.Reset()
	prefilled := 0
	for _, w := range plan.Rows {
		s := e.seqs[w.ID]
		e.append(s, w)
		switch {
		case w.AllLogits:
			b.WantAll(len(w.Tokens))
		case w.Sample:
			if p := s.pick(); p.Token {
				b.WantToken(p)
			} else {
				b.WantLast()
			}
		}
		s.computed = max(s.computed, min(w.From+len(w.Tokens), len(s.req.Prompt)))
		if w.From+len(w.Tokens) <= w.PromptLen {
			prefilled += len(w.Tokens)
		}
	}
	e.plan, b.AfterLayer, b.AfterAttend, b.Interrupt = plan, e.afterLayer, e.afterAttend, &e.interrupt
	start, rows := time.Now(), b.Rows()
	result, err := e.cfg.Runner.Step(b)
	if err != nil {
		return model.Result{}, fmt.Errorf("cannot run a step of %d rows: %w", b.Rows(), err)
	}
	if b.Rows() == rows { // else some were given up, who knows when
		e.rate.add(prefilled, time.Since(start))
	}
	e.book(plan, result.Stats, rows)
	return result, nil
}

// look gives a sequence the view of its pages for the work at hand.
func (e *Engine) look(s *sequence, w sched.Work) {
	v := s.nextView()
	if s.sink == nil {
		e.adoptPlanes(s, w.From)
		e.pages.View(w.Table, w.PromptLen, v)
		return
	}
	if s.staged != w.From { // its first step, or the first after it lost its pages
		s.staged = 0
	}
	v.Staged, s.staged = s.staged, w.From+len(w.Tokens)
	e.pages.Stage(w.Table, w.PromptLen, v)
}

// show tells the sinks of prompts computed for others that a layer is written.
func (e *Engine) show(layer int) {
	for _, w := range e.plan.Rows {
		if s := e.seqs[w.ID]; s != nil && s.sink != nil {
			s.sink.Written(layer, w.From+len(w.Tokens), s.view)
		}
	}
}

// showSecond tells the sinks of prompts that end with the step that a layer's
// important tokens have their second planes.
func (e *Engine) showSecond(layer int) {
	for _, w := range e.plan.Rows {
		if s := e.seqs[w.ID]; s != nil && s.sink != nil && w.From+len(w.Tokens) == w.PromptLen {
			s.sink.Selected(layer, s.view)
		}
	}
}

// book puts the step's times on its sequences: coding by their rows, and all the
// attention on each that decodes, as all of them waited for it.
func (e *Engine) book(plan sched.Plan, st model.Stats, rows int) {
	for _, w := range plan.Rows {
		s := e.seqs[w.ID]
		switch {
		case s == nil: // it left in the middle of the step
		case s.firstToken.IsZero():
			s.timing.Quantise += st.Quantise * time.Duration(len(w.Tokens)) / time.Duration(rows)
		default:
			s.timing.Attend += st.Attend
		}
	}
}

// commit samples the rows that want it and turns the results into the next
// step's events and the requests' outputs.
func (e *Engine) commit(plan sched.Plan, r model.Result) {
	vocab := e.cfg.Runner.Config().VocabSize
	logits, row := r.Logits, 0
	for i, w := range plan.Rows {
		s := e.seqs[w.ID]
		switch {
		case e.batch.GivenUp(i):
			e.drop(s, errLeft)
		case w.AllLogits:
			n := len(w.Tokens) * vocab
			s.scorePrompt(w, logits[:n], vocab)
			if w.Sample {
				e.take(s, logits[n-vocab:n])
			}
			logits, row = logits[n:], row+len(w.Tokens)
		case w.Sample:
			if r.Tokens != nil && s.pick().Token {
				picked := terse.Token(r.Tokens[row])
				e.emit(s, picked, terse.Scored{Logprob: terse.Logprob{Token: picked}})
			} else {
				e.take(s, logits[:vocab])
			}
			logits, row = logits[vocab:], row+1
		}
	}
}

// take picks a sequence's next token and emits it.
func (e *Engine) take(s *sequence, logits []float32) {
	token, score := s.sampler.Next(logits, s.generated)
	e.emit(s, token, score)
}

func (e *Engine) emit(s *sequence, token terse.Token, score terse.Scored) {
	finished := s.emitToken(token, score)
	e.sampled = append(e.sampled, sched.Sampled{ID: s.id, Token: token, Finished: finished})
	e.events = append(e.events, &e.sampled[len(e.sampled)-1])
	if finished {
		s.finish(s.reason, nil)
	}
}

// abandon cancels a plan that was given up. Its rows are not computed, so this
// comes before anything else is said about their sequences.
func (e *Engine) abandon(plan sched.Plan) {
	for _, w := range plan.Rows {
		e.drop(e.seqs[w.ID], errLeft)
	}
}

// fail cancels everything that was in a plan whose run failed.
func (e *Engine) fail(plan sched.Plan, err error) {
	e.cfg.Logger.Error("a step failed", "error", err)
	for _, w := range plan.Rows {
		e.drop(e.seqs[w.ID], terse.AsError(err))
	}
}

// drop ends a sequence with an error and tells the scheduler.
func (e *Engine) drop(s *sequence, err *terse.Error) {
	if s == nil {
		return
	}
	reason := terse.FinishError
	if err.Code == terse.CodeCancelled {
		reason = terse.FinishCancel
	}
	s.finish(reason, err)
	e.events = append(e.events, sched.Cancel{ID: s.id})
}

func (e *Engine) failAll(err *terse.Error) {
	for _, s := range e.seqs {
		s.stopPlanes()
		s.finish(terse.FinishError, err)
	}
}

// settle carries out what a plan says about sequences: admissions, refusals,
// reservations, drops.
func (e *Engine) settle(plan sched.Plan) {
	now := time.Now()
	// Pages that were lost may have gone to others in this plan.
	for _, id := range plan.Unhosted {
		e.unhost(e.hosted[id], errUnhosted)
	}
	for _, id := range plan.Preempted {
		if s := e.seqs[id]; s != nil {
			s.recompute(e.cfg.Runner.Geometry().Format.PageTokens)
		}
	}
	for _, id := range plan.Dropped {
		if s := e.seqs[id]; s != nil {
			s.stopPlanes()
		}
	}
	for _, r := range plan.Rejected {
		if s := e.seqs[r.ID]; s != nil {
			s.finish(terse.FinishError, r.Err)
			s.endLendings()
			delete(e.seqs, r.ID)
		}
	}
	for _, a := range plan.Admitted {
		e.seqs[a.ID].admit(now, a)
	}
	for _, r := range plan.Reserved {
		s := e.seqs[r.ID]
		s.timing.Queue = now.Sub(s.arrived)
		e.pages.Stage(r.Table, len(s.req.Prompt), s.nextView())
		s.view.Staged = r.HeldTokens
		e.receive(s)
		s.reserved <- reservation{s.view, r.HeldTokens}
	}
	for _, id := range plan.Preempted {
		if s := e.seqs[id]; s != nil && s.view != nil {
			s.view.Weights = nil // computed anew
		}
	}
	for _, id := range plan.Dropped {
		if s := e.seqs[id]; s != nil {
			s.finish(s.reason, nil) // a prompt that was only to be scored ends here
			s.endLendings()
			delete(e.seqs, id)
		}
	}
	e.lend()
}

func (e *Engine) publishLoad() {
	st, kv := e.sched.Stats(), e.cache.Stats()
	waiting := 0
	for _, s := range e.seqs {
		if s.firstToken.IsZero() && !s.over && s.mode != sched.ModeRemote {
			waiting += len(s.req.Prompt) - s.computed
		}
	}
	l := Load{
		Replicas: e.replicas(),
		Running:  st.Running + st.Reserved, Waiting: st.Waiting, WaitingTokens: waiting,
		KVUsed: kv.Used, KVTotal: kv.Budget, PrefillRate: e.rate.value(),
		PrefixQueries: kv.QueryTokens, PrefixHits: kv.HitTokens,
	}
	e.loadMu.Lock()
	e.load = l
	e.loadMu.Unlock()
}

// send hands a command to the loop.
func (e *Engine) send(ctx context.Context, c command) error {
	select {
	case e.inbox <- c:
		return nil
	case <-ctx.Done():
		return cancelled(ctx)
	case <-e.closed:
		return errStopped
	}
}

func cancelled(ctx context.Context) *terse.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &terse.Error{Code: terse.CodeDeadline, Message: "the request's deadline passed"}
	}
	return &terse.Error{Code: terse.CodeCancelled, Message: "the request was cancelled"}
}
