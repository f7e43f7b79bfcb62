package cluster

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
)

// Beats of tests in which leases end: the second one's do so only for who is lost, and
// not for who has to wait for the processor.
const (
	shortBeat  = 50 * time.Millisecond
	steadyBeat = 500 * time.Millisecond
)

// A worker whose connection ends mid-stream, with no goodbye.
func TestKilledWorker(t *testing.T) {
	started, cause := make(chan struct{}, 1), make(chan error, 1)
	work, gate, s := pair(t, steadyBeat, worker("d1", block(started, cause)))
	go func() {
		<-started
		work.Close()
	}()
	tokens, err := collect(t, gate, "d1", request(1))
	require.Equal(t, []terse.Token{1}, tokens)
	require.Equal(t, terse.CodeWorkerLost, terse.CodeOf(err))
	require.Equal(t, terse.CodeWorkerLost, terse.CodeOf(<-cause), "the handler is told too")
	require.ErrorContains(t, s.stop(), "is closed")
}

// A worker that takes a job and then is silent, though its subscription lives:
// the process is stopped, or its machine cut off.
func TestSilentWorker(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	fake, gate := connect(t, srv, shortBeat), connect(t, srv, shortBeat)
	pretend(t, fake, "d1", func(m *nats.Msg) {})
	_, err := collect(t, gate, "d1", request(1))
	require.Equal(t, terse.CodeWorkerLost, terse.CodeOf(err))
	require.ErrorContains(t, err, "nothing heard for 150ms")
}

// A submitter that dies without a word.
func TestKilledSubmitter(t *testing.T) {
	started, cause := make(chan struct{}, 1), make(chan error, 1)
	_, gate, _ := pair(t, steadyBeat, worker("d1", block(started, cause)))
	result := make(chan error, 1)
	go func() {
		result <- gate.Submit(testContext(t), "d1", request(1), func(terse.Output) error { return nil })
	}()
	<-started
	gate.Close()
	require.ErrorContains(t, <-cause, "gateway that submitted the job is gone")
	require.Equal(t, terse.CodeWorkerLost, terse.CodeOf(<-result))
}

// A long job is kept alive from both ends over more than a lease.
func TestQuietJobLives(t *testing.T) {
	_, gate, _ := pair(t, steadyBeat, worker("d1", func(ctx context.Context, _ Job, emit func(terse.Output) error) error {
		select {
		case <-time.After(2 * 3 * steadyBeat):
			return emit(terse.Output{Finish: terse.FinishStop})
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}))
	_, err := collect(t, gate, "d1", request(1))
	require.NoError(t, err)
}

func TestShutdownFailsJobs(t *testing.T) {
	started, cause := make(chan struct{}, 1), make(chan error, 1)
	_, gate, s := pair(t, time.Hour, worker("d1", block(started, cause)))
	stopped := make(chan error, 1)
	go func() {
		<-started
		stopped <- s.stop()
	}()
	_, err := collect(t, gate, "d1", request(1))
	require.Equal(t, terse.CodeWorkerLost, terse.CodeOf(err))
	require.ErrorContains(t, err, "shuts down")
	<-cause
	require.NoError(t, <-stopped)
}

func TestDrainLetsJobsEnd(t *testing.T) {
	started, proceed := make(chan struct{}), make(chan struct{})
	w := worker("d1", func(_ context.Context, _ Job, emit func(terse.Output) error) error {
		close(started)
		<-proceed
		return emit(terse.Output{Tokens: []terse.Token{7}, Finish: terse.FinishStop})
	})
	w.Drain = patience
	_, gate, s := pair(t, steadyBeat, w)
	v := watch(t, gate)
	waitFor(t, v, "d1")
	stopped := make(chan error, 1)
	go func() {
		<-started
		stopped <- s.stop()
	}()
	go func() {
		if err := v.Wait(context.Background(), func(m []Member) bool { return len(m) == 0 }); err == nil {
			_, err = collect(t, gate, "d1", request(1)) // new ones are sent elsewhere
			if terse.CodeOf(err) == terse.CodeNoWorker {
				close(proceed)
			}
		}
	}()
	tokens, err := collect(t, gate, "d1", request(1))
	require.NoError(t, err)
	require.Equal(t, []terse.Token{7}, tokens)
	require.NoError(t, <-stopped)
}

// pretend answers a worker's subject by hand.
func pretend(t *testing.T, c *Conn, id string, answer nats.MsgHandler) {
	t.Helper()
	_, err := c.nc.Subscribe(c.workerSubject(id, "*"), answer)
	require.NoError(t, err)
	require.NoError(t, c.flush(testContext(t)))
}

func outputMessage(t *testing.T, number uint64, out terse.Output) []byte {
	t.Helper()
	data, err := appendOutput(binary.AppendUvarint([]byte{protocol, kindOutput}, number), out)
	require.NoError(t, err)
	return data
}

// Streams that are not what a worker sends fail with a code; what came before
// was delivered.
func TestBrokenStreams(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	fake, gate := connect(t, srv, 0), connect(t, srv, 0)
	token := terse.Output{Tokens: []terse.Token{5}}
	f := func(id string, code terse.Code, want string, delivered int, messages ...[]byte) {
		t.Helper()
		pretend(t, fake, id, func(m *nats.Msg) {
			if m.Data[1] != kindJob {
				return
			}
			for _, data := range messages {
				_ = m.Respond(data)
			}
		})
		tokens, err := collect(t, gate, id, request(1))
		require.Equal(t, code, terse.CodeOf(err))
		require.ErrorContains(t, err, want)
		require.Len(t, tokens, delivered)
	}
	m0, m1, m2 := outputMessage(t, 0, token), outputMessage(t, 1, token), outputMessage(t, 2, token)
	f("gap", terse.CodeWorkerLost, "1 outputs were lost", 1, m0, m2)
	f("first", terse.CodeWorkerLost, "1 outputs were lost", 0, m1)
	f("tail", terse.CodeWorkerLost, "2 outputs were lost", 1, m0, aliveMessage(3))
	f("twice", terse.CodeInternal, "two workers", 2, m0, m1, m1)
	f("restarted", terse.CodeWorkerLost, "restarted", 1, m0, []byte{protocol, kindUnknown})
	f("version", terse.CodeMismatch, "same version", 1, m0, []byte{protocol + 1, kindOutput})
	f("empty", terse.CodeInternal, "0 bytes", 1, m0, nil)
	f("kind", terse.CodeInternal, "kind 77", 1, m0, []byte{protocol, 77})
	f("number", terse.CodeInternal, "ends early", 1, m0, []byte{protocol, kindOutput, 0xff})
	f("garbage", terse.CodeInternal, "claims", 1, m0, []byte{protocol, kindOutput, 1, 0xff, 0xff, 0x7f, 1})
	f("speechless", terse.CodeInternal, "without saying why", 1, m0, outputMessage(t, 1, terse.Output{Finish: terse.FinishError}))
}

// Garbage on every subject leaves workers and gateways at work.
func TestHostilePayloads(t *testing.T) {
	srv := startServer(t, ServerOptions{})
	work, gate, evil := connect(t, srv, steadyBeat), connect(t, srv, steadyBeat), connect(t, srv, steadyBeat)
	started, cause := make(chan struct{}, 1), make(chan error, 1)
	serve(t, work, worker("d1", echo))
	serve(t, work, worker("d2", block(started, cause)))
	v := watch(t, gate)

	running := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		running <- gate.Submit(ctx, "d2", request(1), func(terse.Output) error { return nil })
	}()
	<-started
	replies := []string{"", "terse.stream.evil", "terse.members", "terse.worker.d1.job"}
	subjects := []string{"terse.members", "terse.who", "terse.stream.none", "terse.worker.d1.ping"}
	for _, id := range []string{"d1", "d2"} {
		subjects = append(subjects, work.workerSubject(id, subjectJob), work.workerSubject(id, subjectCtl), work.workerSubject(id, "else"))
	}
	whole, err := marshalJob(request(1, 2, 3), time.Now())
	require.NoError(t, err)
	payloads := [][]byte{nil, {0}, {protocol}, {protocol, kindJob}, {protocol, kindJob, 0xff, 0xff, 0xff, 0xff, 0x7f}, {2, kindJob, 0},
		{protocol, kindKeep}, {protocol, kindCancel}, {protocol, 99}, whole, whole[:len(whole)-1], []byte("{}"), []byte(`{"Protocol":1}`),
		[]byte(`{"Protocol":1,"Gone":true,"Member":{"ID":"d1","Role":"decode"}}`), make([]byte, 100_000)}
	for _, subject := range subjects {
		for _, reply := range replies {
			for _, payload := range payloads {
				require.NoError(t, evil.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: payload}))
			}
		}
	}
	require.NoError(t, evil.flush(testContext(t)))

	tokens, err := collect(t, gate, "d1", request(1, 2, 3))
	require.NoError(t, err)
	require.Equal(t, []terse.Token{1, 2, 3}, tokens)
	waitFor(t, v, "d1", "d2")
	cancel()
	require.Equal(t, terse.CodeCancelled, terse.CodeOf(<-running), "the job that ran meanwhile was not disturbed")
	<-cause
}
