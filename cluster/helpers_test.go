package cluster

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/terse-llm/terse"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; reaching it is a
// failure, never a measurement.
const patience = 2 * time.Minute

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func startServer(t *testing.T, o ServerOptions) *Server {
	t.Helper()
	srv, err := StartServer(o)
	require.NoError(t, err)
	t.Cleanup(srv.Shutdown)
	return srv
}

// connect dials over loopback TCP, as processes on different machines do.
func connect(t *testing.T, srv *Server, beat time.Duration) *Conn {
	t.Helper()
	c, err := Connect(testContext(t), Options{URL: srv.URL(), Name: t.Name(), Beat: beat})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func watch(t *testing.T, c *Conn) *View {
	t.Helper()
	v, err := c.Watch(testContext(t))
	require.NoError(t, err)
	t.Cleanup(v.Close)
	return v
}

func waitFor(t *testing.T, v *View, ids ...string) {
	t.Helper()
	err := v.Wait(testContext(t), func(members []Member) bool {
		var got []string
		for _, m := range members {
			got = append(got, m.ID)
		}
		return slices.Equal(got, ids)
	})
	require.NoError(t, err)
}

func decoder(id string) Member {
	return Member{ID: id, Role: terse.RoleDecode, Model: "tiny", ModelHash: "h", Format: "hq3", MaxContext: 8192, VocabSize: 512}
}

// served is a worker that runs until stop is called or the test ends.
type served struct {
	cancel context.CancelFunc
	once   sync.Once
	result chan error
}

// serve starts a worker and returns when jobs reach it.
func serve(t *testing.T, c *Conn, w Worker) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &served{cancel: cancel, result: make(chan error, 1)}
	id := w.Record().ID
	v := watch(t, c)
	go func() { s.result <- c.Serve(ctx, w) }()
	err := v.Wait(testContext(t), func(members []Member) bool {
		for _, m := range members {
			if m.ID == id {
				return true
			}
		}
		return false
	})
	require.NoError(t, err)
	t.Cleanup(func() { s.stop() })
	return s
}

// stop ends the worker and returns what Serve returned, the first time.
func (s *served) stop() (err error) {
	s.once.Do(func() {
		s.cancel()
		err = <-s.result
	})
	return err
}

func worker(id string, handle Handler) Worker {
	return Worker{Record: func() Member { return decoder(id) }, Handle: handle}
}

// echo emits one output per token of the prompt.
func echo(_ context.Context, job Job, emit func(terse.Output) error) error {
	for _, token := range job.Request.Prompt {
		if err := emit(terse.Output{Tokens: []terse.Token{token}}); err != nil {
			return err
		}
	}
	return emit(terse.Output{Finish: terse.FinishStop, Usage: &terse.Usage{PromptTokens: len(job.Request.Prompt)}})
}

func request(tokens ...terse.Token) Job {
	return Job{Request: terse.Request{ID: "r", Prompt: tokens, MaxTokens: len(tokens)}}
}

// collect submits and returns the tokens that came.
func collect(t *testing.T, c *Conn, id string, job Job) ([]terse.Token, error) {
	t.Helper()
	var tokens []terse.Token
	err := c.Submit(testContext(t), id, job, func(out terse.Output) error {
		tokens = append(tokens, out.Tokens...)
		return nil
	})
	return tokens, err
}

func ascending(n int) []terse.Token {
	tokens := make([]terse.Token, n)
	for i := range tokens {
		tokens[i] = terse.Token(i)
	}
	return tokens
}
