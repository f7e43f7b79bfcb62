package gateway

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/terse-llm/terse"
)

// choiceTask is one choice of an answer: a request in tokens and what the
// gateway does with its text.
type choiceTask struct {
	req      *terse.Request
	stops    []string
	keepStop bool // list the stop token among the scores, as text completions do
	echo     *promptEcho
}

// choiceResult is how a choice ended and where its time went.
type choiceResult struct {
	finish terse.FinishReason
	usage  terse.Usage
	timing terse.Timing
	jct    time.Duration // arrival at the gateway to the last token
}

// sink takes the steps of several choices. Steps of different choices may come
// at the same time.
type sink interface {
	delta(i int, d delta) error
	finish(i int, r choiceResult) error
}

// generation is the state of one choice while it runs.
type generation struct {
	task  *choiceTask
	text  answerText
	echo  *promptEcho // not sent yet
	stop  context.CancelFunc
	out   func(delta) error
	meter *tokenMeter

	tokens int
	finish terse.FinishReason
	err    *terse.Error
	usage  *terse.Usage
	timing *terse.Timing
}

// generate runs one choice. since is the arrival of its request.
func (s *Server) generate(ctx context.Context, t *choiceTask, since time.Time, out func(delta) error) (choiceResult, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g := &generation{
		task: t, echo: t.echo, stop: stop, out: out,
		text:  answerText{stream: s.opts.Tokenizer.NewContinuation(true), stops: t.stops},
		meter: s.metrics.meter(since, s.now),
	}
	err := s.opts.Dispatcher.Generate(ctx, t.req, func(o terse.Output) error {
		return s.safely(func() error { return g.take(o) })
	})
	if err == nil || g.text.stopped {
		err = g.end()
	}
	return g.result(), err
}

// take is one output of the dispatcher.
func (g *generation) take(o terse.Output) error {
	g.note(o)
	if g.text.stopped {
		return nil // only the figures are of interest any more
	}
	if g.echo != nil && g.echo.take(o.Prompt) {
		if err := g.sendEcho(); err != nil {
			return err
		}
	}
	if len(o.Tokens) == 0 {
		return nil
	}
	g.meter.tokens(len(o.Tokens))
	var d delta
	for i, t := range o.Tokens {
		step := g.token(t, scoreAt(o.Scores, i))
		d.text += step.text
		d.scores = append(d.scores, step.scores...)
		if g.text.stopped {
			break
		}
	}
	if err := g.send(d); err != nil {
		return err
	}
	if g.text.stopped {
		g.stop()
	}
	return nil
}

// note keeps what an output says about the request as a whole.
func (g *generation) note(o terse.Output) {
	if o.Finish != "" {
		g.finish, g.err = o.Finish, o.Err
	}
	if o.Usage != nil {
		g.usage = o.Usage
	}
	if o.Timing != nil {
		g.timing = o.Timing
	}
}

func (g *generation) token(t terse.Token, score *terse.Scored) delta {
	g.tokens++
	if !slices.Contains(g.task.req.StopTokens, t) {
		return g.text.push(t, score)
	}
	if g.task.keepStop {
		g.text.note(score)
	}
	return delta{}
}

func scoreAt(scores []terse.Scored, i int) *terse.Scored {
	if i >= len(scores) {
		return nil
	}
	return &scores[i]
}

// sendEcho puts the prompt before the answer.
func (g *generation) sendEcho() error {
	d := g.echo.delta()
	g.text.released, g.text.runes = len(d.text), g.echo.runes
	g.echo = nil
	return g.send(d)
}

func (g *generation) send(d delta) error {
	if d.text == "" && len(d.scores) == 0 {
		return nil
	}
	return g.out(d)
}

// end checks that there was an end, and sends what was held back.
func (g *generation) end() error {
	if g.text.stopped {
		return nil
	}
	switch g.finish {
	case terse.FinishStop, terse.FinishLength:
	case terse.FinishError:
		if g.err != nil {
			return g.err
		}
		return &terse.Error{Code: terse.CodeInternal, Message: "the request failed, and its worker does not say why"}
	case terse.FinishCancel:
		return &terse.Error{Code: terse.CodeWorkerLost, Message: "the worker cancelled the request; try again"}
	default:
		return &terse.Error{Code: terse.CodeInternal, Message: fmt.Sprintf("the token stream ended after %d tokens without a finish reason", g.tokens)}
	}
	if g.echo != nil {
		return &terse.Error{Code: terse.CodeInternal,
			Message: fmt.Sprintf("%d of the prompt's %d tokens have no score", len(g.echo.tokens)-g.echo.have, len(g.echo.tokens))}
	}
	if err := g.send(g.text.finish()); err != nil {
		return err
	}
	if g.text.stopped { // a stop string was completed by the last bytes
		g.finish = terse.FinishStop
	}
	return nil
}

// result is what the worker reported, completed by what was measured here.
func (g *generation) result() choiceResult {
	r := choiceResult{
		finish: g.finish, jct: g.meter.elapsed(),
		usage: terse.Usage{PromptTokens: len(g.task.req.Prompt), CompletionTokens: g.tokens},
	}
	if g.usage != nil {
		r.usage = *g.usage
	}
	if g.timing != nil {
		r.timing = *g.timing
	}
	if g.text.stopped {
		// Tokens that were under way when the stop string was seen do not count.
		r.finish, r.usage.CompletionTokens = terse.FinishStop, g.tokens
	}
	if r.timing.TTFT == 0 {
		r.timing.TTFT = g.meter.ttft()
	}
	if r.timing.Decode == 0 {
		r.timing.Decode = g.meter.decode()
	}
	return r
}

// generateAll runs the choices of one request, some at a time. The first
// failure cancels the others and is returned. Results of choices that did not
// run are zero.
func (s *Server) generateAll(ctx context.Context, tasks []*choiceTask, since time.Time, to sink) ([]choiceResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make([]choiceResult, len(tasks))
	run := func(i int) {
		err := s.safely(func() (err error) {
			results[i], err = s.generate(ctx, tasks[i], since, func(d delta) error { return to.delta(i, d) })
			if err != nil {
				return err
			}
			return to.finish(i, results[i])
		})
		s.metrics.choice(results[i], err)
		if err != nil {
			cancel(&choiceFailed{err})
		}
	}
	var wait sync.WaitGroup
	slots := make(chan struct{}, s.opts.MaxParallel)
	for i := range tasks {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		wait.Go(func() {
			defer func() { <-slots }()
			run(i)
		})
	}
	wait.Wait()
	return results, causeOf(ctx)
}

// choiceFailed tells the failure of a choice from the client's leaving.
type choiceFailed struct{ err error }

func (e *choiceFailed) Error() string { return e.err.Error() }
func (e *choiceFailed) Unwrap() error { return e.err }

func causeOf(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return context.Cause(ctx)
}

// safely turns a panic of f into an error: callbacks and choices run on
// goroutines whose panic would end the process.
func (s *Server) safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &terse.Error{Code: terse.CodeInternal, Message: "internal error: the server's log has more"}
		}
	}()
	return f()
}
