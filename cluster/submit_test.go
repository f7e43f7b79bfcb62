package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
)

// block runs until its job is cancelled and reports why.
func block(started chan<- struct{}, cause chan<- error) Handler {
	return func(ctx context.Context, _ Job, emit func(terse.Output) error) error {
		if err := emit(terse.Output{Tokens: []terse.Token{1}}); err != nil {
			return err
		}
		started <- struct{}{}
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return context.Cause(ctx)
	}
}

func pair(t *testing.T, beat time.Duration, w Worker) (work, gate *Conn, s *served) {
	t.Helper()
	srv := startServer(t, ServerOptions{})
	work, gate = connect(t, srv, beat), connect(t, srv, beat)
	return work, gate, serve(t, work, w)
}

func TestOutputsComeInOrder(t *testing.T) {
	var got Job
	_, gate, _ := pair(t, 0, worker("d1", func(ctx context.Context, job Job, emit func(terse.Output) error) error {
		got = job
		return echo(ctx, job, emit)
	}))
	job := request(ascending(2000)...)
	job.Prefill = &Target{WorkerID: "p1", DataAddr: "127.0.0.1:1"}
	job.Attempt, job.Route = 2, "split"
	var tokens []terse.Token
	var last terse.Output
	err := gate.Submit(testContext(t), "d1", job, func(out terse.Output) error {
		require.Empty(t, last.Finish, "an output after the last one")
		tokens = append(tokens, out.Tokens...)
		last = out
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, job.Request.Prompt, tokens)
	require.Equal(t, terse.Output{Finish: terse.FinishStop, Usage: &terse.Usage{PromptTokens: 2000}}, last)
	got.Arrival = time.Time{}
	require.Equal(t, job, got)
}

func TestManyJobsAtOnce(t *testing.T) {
	_, gate, _ := pair(t, 0, worker("d1", echo))
	var wg sync.WaitGroup
	errs := make([]error, 100)
	for i := range errs {
		wg.Go(func() {
			want := []terse.Token{terse.Token(i), terse.Token(i + 1), terse.Token(2 * i)}
			got, err := collect(t, gate, "d1", request(want...))
			if err == nil && fmt.Sprint(got) != fmt.Sprint(want) {
				err = fmt.Errorf("job %d got %v", i, got)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

func TestUnknownWorker(t *testing.T) {
	const never = time.Hour // the answer comes from NATS, not from a lease
	c := connect(t, startServer(t, ServerOptions{}), never)
	_, err := collect(t, c, "d9", request(1))
	require.Equal(t, terse.CodeNoWorker, terse.CodeOf(err))
	require.ErrorContains(t, err, `no worker "d9"`)
	_, err = collect(t, c, "*", request(1))
	require.Equal(t, terse.CodeNoWorker, terse.CodeOf(err))
}

func TestErrorsKeepTheirCode(t *testing.T) {
	f := func(result error, code terse.Code, message string) {
		t.Helper()
		_, gate, _ := pair(t, 0, worker("d1", func(context.Context, Job, func(terse.Output) error) error { return result }))
		tokens, err := collect(t, gate, "d1", request(1))
		require.Empty(t, tokens)
		require.Equal(t, code, terse.CodeOf(err))
		require.ErrorContains(t, err, message)
	}
	f(fmt.Errorf("cannot fetch: %w", &terse.Error{Code: terse.CodeTransfer, Message: "p1 hung up"}), terse.CodeTransfer, "cannot fetch: p1 hung up")
	f(errors.New("odd"), terse.CodeInternal, "odd")
	f(nil, terse.CodeInternal, "without a last output")
}

// An engine reports failures as an output; the submitter sees an error.
func TestErrorOutputIsAnError(t *testing.T) {
	_, gate, _ := pair(t, 0, worker("d1", func(_ context.Context, _ Job, emit func(terse.Output) error) error {
		return emit(terse.Output{Finish: terse.FinishError, Err: &terse.Error{Code: terse.CodeKVMemory, Message: "too long"}})
	}))
	_, err := collect(t, gate, "d1", request(1))
	require.Equal(t, terse.CodeKVMemory, terse.CodeOf(err))
}

func TestCancelReachesTheHandler(t *testing.T) {
	const never = time.Hour // by the message, not by a lease
	started, cause := make(chan struct{}, 1), make(chan error, 1)
	_, gate, _ := pair(t, never, worker("d1", block(started, cause)))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	err := gate.Submit(ctx, "d1", request(1), func(terse.Output) error { return nil })
	require.Equal(t, terse.CodeCancelled, terse.CodeOf(err))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, terse.CodeCancelled, terse.CodeOf(<-cause))
}

func TestDeadlineReachesTheHandler(t *testing.T) {
	started, cause := make(chan struct{}, 1), make(chan error, 1)
	_, gate, _ := pair(t, time.Hour, worker("d1", block(started, cause)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := gate.Submit(ctx, "d1", request(1), func(terse.Output) error { return nil })
	require.Equal(t, terse.CodeDeadline, terse.CodeOf(err))
	require.Equal(t, terse.CodeCancelled, terse.CodeOf(<-cause))
}

func TestEmitErrorCancels(t *testing.T) {
	started, cause := make(chan struct{}, 1), make(chan error, 1)
	_, gate, _ := pair(t, time.Hour, worker("d1", block(started, cause)))
	gone := errors.New("client went away")
	err := gate.Submit(testContext(t), "d1", request(1), func(terse.Output) error { return gone })
	require.ErrorIs(t, err, gone)
	require.Equal(t, terse.CodeCancelled, terse.CodeOf(<-cause))
}

func TestJobsAreBounded(t *testing.T) {
	started, cause := make(chan struct{}, 1), make(chan error, 1)
	w := worker("d1", block(started, cause))
	w.MaxJobs = 1
	_, gate, _ := pair(t, 0, w)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		first <- gate.Submit(ctx, "d1", request(1), func(terse.Output) error { return nil })
	}()
	<-started
	_, err := collect(t, gate, "d1", request(1))
	require.Equal(t, terse.CodeOverloaded, terse.CodeOf(err))
	cancel()
	require.Equal(t, terse.CodeCancelled, terse.CodeOf(<-first))
	<-cause
}

func TestPrefillWorkersTakeNoJobs(t *testing.T) {
	w := worker("p1", nil)
	w.Record = func() Member { m := decoder("p1"); m.Role = terse.RolePrefill; return m }
	_, gate, _ := pair(t, 0, w)
	_, err := collect(t, gate, "p1", request(1))
	require.Equal(t, terse.CodeNoWorker, terse.CodeOf(err))
	require.ErrorContains(t, err, "takes no requests")
}

func TestOversizedJob(t *testing.T) {
	_, gate, _ := pair(t, 0, worker("d1", echo))
	job := request(make([]terse.Token, serverPayload+1)...)
	_, err := collect(t, gate, "d1", job)
	require.Equal(t, terse.CodeInvalid, terse.CodeOf(err))
	require.ErrorContains(t, err, fmt.Sprint(serverPayload))
	require.ErrorContains(t, err, "raise max_payload")
}

// Prompt scores beyond the largest message arrive whole and in order.
func TestLargeOutputsAreSplit(t *testing.T) {
	scores := make([]terse.Scored, 200_000)
	for i := range scores {
		scores[i] = terse.Scored{Logprob: terse.Logprob{Token: terse.Token(i), Logprob: -float32(i)}, Top: make([]terse.Logprob, 4)}
	}
	_, gate, _ := pair(t, 0, worker("d1", func(_ context.Context, _ Job, emit func(terse.Output) error) error {
		return emit(terse.Output{Prompt: scores, Finish: terse.FinishLength})
	}))
	var got []terse.Scored
	outputs := 0
	err := gate.Submit(testContext(t), "d1", request(1), func(out terse.Output) error {
		outputs++
		got = append(got, out.Prompt...)
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, outputs, 1)
	require.Equal(t, len(scores), len(got))
	for i, s := range got {
		require.Equal(t, terse.Token(i), s.Token)
	}
}

// While a client reads slowly the worker goes on, leases hold, nothing is lost.
func TestSlowConsumer(t *testing.T) {
	handled := make(chan struct{})
	_, gate, _ := pair(t, steadyBeat, worker("d1", func(ctx context.Context, job Job, emit func(terse.Output) error) error {
		defer close(handled)
		return echo(ctx, job, emit)
	}))
	var tokens []terse.Token
	prompt := ascending(20_000)
	err := gate.Submit(testContext(t), "d1", request(prompt...), func(out terse.Output) error {
		if len(tokens) == 0 {
			<-handled // all has been sent before the second output is read
			time.Sleep(3 * steadyBeat * 3 / 2)
		}
		tokens = append(tokens, out.Tokens...)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, prompt, tokens)
}

// Beyond the backlog's bound outputs are dropped, which is noticed and named.
func TestTooSlowConsumer(t *testing.T) {
	handled := make(chan struct{})
	_, gate, _ := pair(t, 0, worker("d1", func(ctx context.Context, job Job, emit func(terse.Output) error) error {
		defer close(handled)
		return echo(ctx, job, emit)
	}))
	gate.backlog = 1 << 10
	waited := false
	err := gate.Submit(testContext(t), "d1", request(ascending(2000)...), func(terse.Output) error {
		if !waited {
			waited = true
			<-handled
			return gate.flush(t.Context()) // all has arrived here
		}
		return nil
	})
	require.Equal(t, terse.CodeInternal, terse.CodeOf(err))
	require.ErrorContains(t, err, "read so slowly")
}

func TestEmitAfterTheEnd(t *testing.T) {
	after := make(chan error, 1)
	_, gate, _ := pair(t, 0, worker("d1", func(_ context.Context, _ Job, emit func(terse.Output) error) error {
		err := emit(terse.Output{Finish: terse.FinishStop})
		after <- emit(terse.Output{Tokens: []terse.Token{1}})
		return err
	}))
	_, err := collect(t, gate, "d1", request(1))
	require.NoError(t, err)
	require.ErrorContains(t, <-after, "after the last one")
}
