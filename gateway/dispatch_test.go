package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

// workers is a scripted cluster: what each decode worker does with a job.
type workers struct {
	list []cluster.Member
	do   map[string]func(job cluster.Job, emit func(terse.Output) error) error

	mu    sync.Mutex
	tried []string // decode worker, and prefill worker where split
	jobs  []cluster.Job
}

func (w *workers) Members() []cluster.Member { return w.list }
func (w *workers) Connected() error          { return nil }

func (w *workers) Submit(_ context.Context, id string, job cluster.Job, emit func(terse.Output) error) error {
	w.mu.Lock()
	way := id
	if job.Prefill != nil {
		way = job.Prefill.WorkerID + ">" + id
	}
	w.tried = append(w.tried, way)
	w.jobs = append(w.jobs, job)
	w.mu.Unlock()
	if do := w.do[way]; do != nil {
		return do(job, emit)
	}
	return answerJob(job, emit)
}

func answerJob(_ cluster.Job, emit func(terse.Output) error) error {
	if err := emit(terse.Output{Tokens: []terse.Token{42}}); err != nil {
		return err
	}
	return emit(terse.Output{Finish: terse.FinishStop, Timing: &terse.Timing{TTFT: time.Second}})
}

func failWith(code terse.Code, message string) func(cluster.Job, func(terse.Output) error) error {
	return func(cluster.Job, func(terse.Output) error) error {
		return &terse.Error{Code: code, Message: message}
	}
}

func clusterMember(id string, role terse.Role) cluster.Member {
	return cluster.Member{ID: id, Role: role, DataAddr: id + ":9000", Model: "tiny", ModelHash: "h", Format: "hq3", MaxContext: 8192}
}

func longRequest() *terse.Request {
	return &terse.Request{ID: "r1", Prompt: make([]terse.Token, 1000), MaxTokens: 8, Sampling: terse.Sampling{Logprobs: -1, PromptLogprobs: -1}}
}

// gather runs a request and returns its tokens and last output.
func gather(c Dispatcher, req *terse.Request) (tokens []terse.Token, last terse.Output, err error) {
	err = c.Generate(context.Background(), req, func(out terse.Output) error {
		tokens = append(tokens, out.Tokens...)
		last = out
		return nil
	})
	return tokens, last, err
}

var xPyD = []cluster.Member{
	clusterMember("d1", terse.RoleDecode), clusterMember("d2", terse.RoleDecode),
	clusterMember("p1", terse.RolePrefill), clusterMember("p2", terse.RolePrefill),
}

func TestDispatchSplits(t *testing.T) {
	w := &workers{list: xPyD}
	tokens, last, err := gather(newCluster(w, w, ClusterOptions{}), longRequest())
	require.NoError(t, err)
	require.Equal(t, []terse.Token{42}, tokens)
	require.Equal(t, []string{"p1>d1"}, w.tried)
	job := w.jobs[0]
	require.Equal(t, &cluster.Target{WorkerID: "p1", DataAddr: "p1:9000"}, job.Prefill)
	require.WithinDuration(t, time.Now(), job.Arrival, time.Minute)
	require.Contains(t, job.Route, "split")
	require.Equal(t, &terse.Timing{TTFT: time.Second, PrefillWorker: "p1", DecodeWorker: "d1", Route: job.Route}, last.Timing)
}

func TestDispatchRetries(t *testing.T) {
	f := func(want []string, do map[string]func(cluster.Job, func(terse.Output) error) error) {
		t.Helper()
		w := &workers{list: xPyD, do: do}
		tokens, last, err := gather(newCluster(w, w, ClusterOptions{}), longRequest())
		require.NoError(t, err)
		require.Equal(t, []terse.Token{42}, tokens)
		require.Equal(t, want, w.tried)
		require.Equal(t, len(want)-1, last.Timing.Retries)
		for i, job := range w.jobs {
			require.Equal(t, i, job.Attempt)
		}
	}
	type script = map[string]func(cluster.Job, func(terse.Output) error) error
	f([]string{"p1>d1", "p1>d2"}, script{"p1>d1": failWith(terse.CodeWorkerLost, `worker "d1" lost`)})
	f([]string{"p1>d1", "p1>d2"}, script{"p1>d1": failWith(terse.CodeNoWorker, `no worker "d1"`)})
	f([]string{"p1>d1", "p1>d2"}, script{"p1>d1": failWith(terse.CodeOverloaded, `worker "d1" has 4 jobs`)})
	// The prefill worker is to blame where the error says so, or is a transfer.
	f([]string{"p1>d1", "p2>d1"}, script{"p1>d1": failWith(terse.CodeWorkerLost, `prefill worker "p1" lost`)})
	f([]string{"p1>d1", "p2>d1"}, script{"p1>d1": failWith(terse.CodeTransfer, "checksum of frame 7")})
	f([]string{"p1>d1", "p1>d2"}, script{"p1>d1": failWith(terse.CodeWorkerLost, `worker "d1" near p11 lost`)})
	// Without any prefill worker left the decode worker computes the prompt.
	f([]string{"p1>d1", "p2>d1", "d1"}, script{
		"p1>d1": failWith(terse.CodeTransfer, "broken"), "p2>d1": failWith(terse.CodeTransfer, "broken"),
	})
}

func TestDispatchGivesUp(t *testing.T) {
	f := func(code, want terse.Code, tries int, list []cluster.Member) {
		t.Helper()
		w := &workers{list: list, do: map[string]func(cluster.Job, func(terse.Output) error) error{}}
		for _, way := range []string{"d1", "d2", "p1>d1", "p1>d2", "p2>d1", "p2>d2"} {
			w.do[way] = failWith(code, "it "+way)
		}
		_, _, err := gather(newCluster(w, w, ClusterOptions{}), longRequest())
		require.Equal(t, want, terse.CodeOf(err))
		require.Len(t, w.tried, tries)
	}
	f(terse.CodeTransfer, terse.CodeTransfer, 3, xPyD)
	// With nobody left, what went wrong is reported, not that nobody is left.
	f(terse.CodeWorkerLost, terse.CodeWorkerLost, 2, xPyD[:2])
	f(terse.CodeOverloaded, terse.CodeOverloaded, 1, xPyD[:1])
	// What another worker would answer as well is not tried again.
	f(terse.CodeInvalid, terse.CodeInvalid, 1, xPyD)
	f(terse.CodeKVMemory, terse.CodeKVMemory, 1, xPyD)
	f(terse.CodeInternal, terse.CodeInternal, 1, xPyD)
	f(terse.CodeCancelled, terse.CodeCancelled, 1, xPyD)
	f(terse.CodeDeadline, terse.CodeDeadline, 1, xPyD)
	// Nobody at all.
	f("", terse.CodeNoWorker, 0, nil)
	f("", terse.CodeNoWorker, 0, xPyD[2:])
}

// losing says some tokens and is lost.
func losing(tokens ...terse.Token) func(cluster.Job, func(terse.Output) error) error {
	return func(_ cluster.Job, emit func(terse.Output) error) error {
		for i, t := range tokens {
			out := terse.Output{Tokens: []terse.Token{t}}
			if i == 0 {
				out.Timing = &terse.Timing{TTFT: time.Minute, Prefill: time.Second, PrefillWorker: "p1"}
				out.Usage = &terse.Usage{CachedTokens: 64}
			}
			if err := emit(out); err != nil {
				return err
			}
		}
		return &terse.Error{Code: terse.CodeWorkerLost, Message: `worker "d1" lost`}
	}
}

// What a lost worker began another one goes on with, from behind the last token:
// the client sees none twice, and the answer counts as one.
func TestDispatchGoesOn(t *testing.T) {
	req := longRequest()
	req.Prompt[999] = 7
	req.StopTokens = []terse.Token{99}
	w := &workers{list: xPyD, do: map[string]func(cluster.Job, func(terse.Output) error) error{
		"p1>d1": losing(1, 2, 3),
		"d2": func(job cluster.Job, emit func(terse.Output) error) error {
			if err := emit(terse.Output{Tokens: []terse.Token{4}, Timing: &terse.Timing{TTFT: time.Hour}, Usage: &terse.Usage{}}); err != nil {
				return err
			}
			return emit(terse.Output{Finish: terse.FinishStop, Timing: &terse.Timing{TTFT: time.Hour}, Usage: &terse.Usage{PromptTokens: 1000, CompletionTokens: 4}})
		},
	}}
	tokens, last, err := gather(newCluster(w, w, ClusterOptions{}), req)
	require.NoError(t, err)
	require.Equal(t, []terse.Token{1, 2, 3, 4}, tokens)
	require.Equal(t, []string{"p1>d1", "d2"}, w.tried)
	job := w.jobs[1].Request
	require.Equal(t, append(slices.Clone(req.Prompt), 1, 2, 3), job.Prompt)
	require.Equal(t, []int{3, 64, req.MaxTokens}, []int{job.Resumed, job.Reused, job.MaxTokens})
	require.Equal(t, &terse.Usage{PromptTokens: 1000, CompletionTokens: 4, CachedTokens: 64}, last.Usage)
	require.Equal(t, []any{time.Minute, time.Second, 3, 1, "d2"},
		[]any{last.Timing.TTFT, last.Timing.Prefill, last.Timing.Replayed, last.Timing.Retries, last.Timing.DecodeWorker})
}

// Whoever holds a replica of the request goes on with it, however busy, and says
// how much of it was there.
func TestDispatchGoesOnBehindAReplica(t *testing.T) {
	list := append(slices.Clone(xPyD), clusterMember("d3", terse.RoleDecode))
	list[len(list)-1].Replicas, list[len(list)-1].Running = []string{"other", "r1"}, 50
	w := &workers{list: list, do: map[string]func(cluster.Job, func(terse.Output) error) error{
		"p1>d1": losing(1, 2, 3),
		"d3": func(_ cluster.Job, emit func(terse.Output) error) error {
			return emit(terse.Output{Tokens: []terse.Token{4}, Finish: terse.FinishStop, Timing: &terse.Timing{Recovered: 960}, Usage: &terse.Usage{}})
		},
	}}
	_, last, err := gather(newCluster(w, w, ClusterOptions{}), longRequest())
	require.NoError(t, err)
	require.Equal(t, []string{"p1>d1", "d3"}, w.tried)
	require.Equal(t, []int{3, 960}, []int{last.Timing.Replayed, last.Timing.Recovered})
}

// Whoever goes on gets the record of what the client's tokens were computed on,
// which comes with them.
func TestDispatchGoesOnByRecord(t *testing.T) {
	record := terse.PlaneRecord{Awaited: []int{1, 2, 3}}
	grown := terse.PlaneRecord{Awaited: record.Awaited, Adopted: []terse.Adoption{{At: 1024, Pages: []int{1, 2}}}}
	whole := terse.PlaneRecord{Awaited: record.Awaited, Adopted: append(slices.Clone(grown.Adopted), terse.Adoption{At: 1088, Pages: []int{3}})}
	w := &workers{list: xPyD, do: map[string]func(cluster.Job, func(terse.Output) error) error{
		"p1>d1": func(_ cluster.Job, emit func(terse.Output) error) error {
			for _, out := range []terse.Output{
				{Tokens: []terse.Token{1}, Timing: &terse.Timing{PlaneRecord: record}}, {Tokens: []terse.Token{2}},
				{Tokens: []terse.Token{3}, Timing: &terse.Timing{PlaneRecord: grown}},
			} {
				if err := emit(out); err != nil {
					return err
				}
			}
			return &terse.Error{Code: terse.CodeWorkerLost, Message: `worker "d1" lost`}
		},
		"d2": func(_ cluster.Job, emit func(terse.Output) error) error {
			if err := emit(terse.Output{Tokens: []terse.Token{4}, Timing: &terse.Timing{PlaneRecord: whole}, Usage: &terse.Usage{}}); err != nil {
				return err
			}
			return emit(terse.Output{Finish: terse.FinishStop, Timing: &terse.Timing{PlaneRecord: whole, TopTokens: 70}, Usage: &terse.Usage{}})
		},
	}}
	_, last, err := gather(newCluster(w, w, ClusterOptions{}), longRequest())
	require.NoError(t, err)
	require.Nil(t, w.jobs[0].Request.Planes)
	require.Equal(t, &grown, w.jobs[1].Request.Planes)
	require.Equal(t, whole, last.Timing.PlaneRecord)
	require.Equal(t, 70, last.Timing.TopTokens)
}

// Late requests begin on top planes, by a worker that is left to decide.
func TestDispatchSaysHowPlanesCome(t *testing.T) {
	ask := func(ttft time.Duration) cluster.Job {
		list := slices.Clone(xPyD)
		for i := range list {
			m := &list[i]
			m.Progressive, m.KVFixed, m.KVPerToken, m.KVSecond, m.PrefillRate = "auto", 1000, 1000, 400, 1000
			m.Links = map[string]float64{"p1": 5e5, "p2": 5e5}
			m.Running = 5
		}
		w := &workers{list: list}
		_, _, err := gather(newCluster(w, w, ClusterOptions{TTFT: ttft}), longRequest())
		require.NoError(t, err)
		return w.jobs[0]
	}
	require.Equal(t, []any{false, "whole: no time to the first token is asked for"}, []any{ask(0).Apart, ask(0).Planes})
	require.True(t, ask(time.Second).Apart)
	require.Contains(t, ask(time.Second).Planes, "apart: late otherwise, ")
}

// Several workers may be lost, as long as each brings the answer on; where only
// the end is missing, nobody is asked for it.
func TestDispatchGoesOnToTheEnd(t *testing.T) {
	f := func(want []terse.Token, finish terse.FinishReason, tried int, do map[string]func(cluster.Job, func(terse.Output) error) error) {
		t.Helper()
		var list []cluster.Member
		for _, id := range []string{"d1", "d2", "d3", "d4", "d5", "d6"} {
			list = append(list, clusterMember(id, terse.RoleDecode))
		}
		req := longRequest()
		req.MaxTokens, req.StopTokens = 6, []terse.Token{99}
		w := &workers{list: list, do: do}
		tokens, last, err := gather(newCluster(w, w, ClusterOptions{}), req)
		if finish == "" {
			require.Equal(t, terse.CodeWorkerLost, terse.CodeOf(err))
		} else {
			require.NoError(t, err)
			require.Equal(t, len(want), last.Usage.CompletionTokens)
		}
		require.Equal(t, want, tokens)
		require.Equal(t, finish, last.Finish)
		require.Len(t, w.tried, tried)
	}
	type script = map[string]func(cluster.Job, func(terse.Output) error) error
	f([]terse.Token{1, 2, 3, 4, 5, 6}, terse.FinishLength, 6,
		script{"d1": losing(1), "d2": losing(2), "d3": losing(3), "d4": losing(4), "d5": losing(5), "d6": losing(6)})
	f([]terse.Token{1, 99}, terse.FinishStop, 1, script{"d1": losing(1, 99)})
	f([]terse.Token{1}, "", 4, script{"d1": losing(1), "d2": losing(), "d3": losing(), "d4": losing()})
	f([]terse.Token{1, 2}, "", 6, script{"d1": losing(), "d2": losing(1), "d3": losing(2), "d4": losing(), "d5": losing(), "d6": losing()})
}

// The scores of a prompt come once, too.
func TestDispatchGoesOnWithScores(t *testing.T) {
	scores := make([]terse.Scored, 10)
	for i := range scores {
		scores[i].Token = terse.Token(i)
	}
	w := &workers{list: xPyD[:2], do: map[string]func(cluster.Job, func(terse.Output) error) error{
		"d1": func(_ cluster.Job, emit func(terse.Output) error) error {
			if err := emit(terse.Output{Prompt: scores[:4]}); err != nil {
				return err
			}
			return &terse.Error{Code: terse.CodeWorkerLost, Message: `worker "d1" lost`}
		},
		"d2": func(job cluster.Job, emit func(terse.Output) error) error {
			for _, part := range [][]terse.Scored{scores[:3], scores[3:7], scores[7:]} {
				if err := emit(terse.Output{Prompt: part}); err != nil {
					return err
				}
			}
			return answerJob(job, emit)
		},
	}}
	req := longRequest()
	req.Sampling.PromptLogprobs = 0
	var got []terse.Scored
	err := newCluster(w, w, ClusterOptions{}).Generate(context.Background(), req, func(out terse.Output) error {
		got = append(got, out.Prompt...)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, scores, got)
	require.Equal(t, req.Prompt, w.jobs[1].Request.Prompt)
}

func TestDispatchEmitErrorEnds(t *testing.T) {
	w := &workers{list: xPyD}
	gone := errors.New("gone")
	err := newCluster(w, w, ClusterOptions{}).Generate(context.Background(), longRequest(), func(terse.Output) error { return gone })
	require.ErrorIs(t, err, gone)
	require.Len(t, w.tried, 1)
}

// A burst within one beat spreads over the workers, though every record still
// shows them idle; when it is over the books are empty.
func TestDispatchSpreadsABurst(t *testing.T) {
	release := make(chan struct{})
	hold := func(job cluster.Job, emit func(terse.Output) error) error {
		<-release
		return answerJob(job, emit)
	}
	w := &workers{list: xPyD, do: map[string]func(cluster.Job, func(terse.Output) error) error{
		"p1>d1": hold, "p2>d1": hold, "p1>d2": hold, "p2>d2": hold,
	}}
	c := newCluster(w, w, ClusterOptions{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() { _, _, _ = gather(c, longRequest()) })
		require.Eventually(t, func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.tried) == i+1
		}, 2*time.Minute, time.Millisecond)
	}
	close(release)
	wg.Wait()
	slices.Sort(w.tried)
	require.Equal(t, []string{"p1>d1", "p1>d1", "p1>d1", "p1>d1", "p2>d2", "p2>d2", "p2>d2", "p2>d2"}, w.tried)
	require.Empty(t, c.ledger.accounts)
}

func TestDispatchReady(t *testing.T) {
	f := func(list []cluster.Member, want terse.Code) {
		t.Helper()
		w := &workers{list: list}
		err := newCluster(w, w, ClusterOptions{}).Ready()
		if want == "" {
			require.NoError(t, err)
			return
		}
		require.Equal(t, want, terse.CodeOf(err))
	}
	f(xPyD, "")
	f(xPyD[:1], "")
	f(xPyD[2:], terse.CodeNoWorker)
	f(nil, terse.CodeNoWorker)
	odd := clusterMember("x", terse.RoleDecode)
	odd.Format = "hq2"
	f([]cluster.Member{xPyD[0], odd}, terse.CodeMismatch)
}

// realCluster is an embedded NATS server with workers on connections of their
// own, and a dispatcher.
type realCluster struct {
	*Cluster
	kill map[string]func() // ends a worker's connection, without goodbye
}

func startCluster(t *testing.T, handlers map[string]cluster.Handler) *realCluster {
	t.Helper()
	srv, err := cluster.StartServer(cluster.ServerOptions{})
	require.NoError(t, err)
	t.Cleanup(srv.Shutdown)
	dial := func() *cluster.Conn {
		c, err := cluster.Connect(t.Context(), cluster.Options{URL: srv.URL(), Beat: 500 * time.Millisecond})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	conn := dial()
	view, err := conn.Watch(t.Context())
	require.NoError(t, err)
	t.Cleanup(view.Close)
	r := &realCluster{Cluster: NewCluster(conn, view, ClusterOptions{}), kill: map[string]func(){}}
	for id, handle := range handlers {
		c := dial()
		serveWorker(t, c, id, handle)
		r.kill[id] = c.Close
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	require.NoError(t, view.Wait(ctx, func(m []cluster.Member) bool { return len(m) == len(handlers) }))
	return r
}

func serveWorker(t *testing.T, c *cluster.Conn, id string, handle cluster.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Killed workers end with an error, which their test is about.
		_ = c.Serve(ctx, cluster.Worker{Record: func() cluster.Member { return clusterMember(id, terse.RoleDecode) }, Handle: handle})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func TestDispatchOverNATS(t *testing.T) {
	echoPrompt := func(_ context.Context, job cluster.Job, emit func(terse.Output) error) error {
		return emit(terse.Output{Tokens: job.Request.Prompt[:1], Finish: terse.FinishStop, Timing: &terse.Timing{}})
	}
	r := startCluster(t, map[string]cluster.Handler{"d1": echoPrompt, "d2": echoPrompt})
	require.NoError(t, r.Ready())
	require.Len(t, r.Members(), 2)
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() {
			req := longRequest()
			req.Prompt[0] = terse.Token(i)
			tokens, _, err := gather(r, req)
			if err == nil && (len(tokens) != 1 || tokens[0] != terse.Token(i)) {
				err = fmt.Errorf("request %d got %v", i, tokens)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
}

// The worker that got the request dies before its first token: another answers.
func TestDispatchSurvivesAKilledWorker(t *testing.T) {
	taken := make(chan struct{}, 1)
	r := startCluster(t, map[string]cluster.Handler{
		"d1": func(ctx context.Context, _ cluster.Job, _ func(terse.Output) error) error {
			taken <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		},
		"d2": func(_ context.Context, job cluster.Job, emit func(terse.Output) error) error {
			return answerJob(job, emit)
		},
	})
	go func() {
		<-taken
		r.kill["d1"]()
	}()
	tokens, last, err := gather(r, longRequest())
	require.NoError(t, err)
	require.Equal(t, []terse.Token{42}, tokens)
	require.Equal(t, 1, last.Timing.Retries)
	require.Equal(t, "d2", last.Timing.DecodeWorker)
}

func TestDispatchHonoursDeadline(t *testing.T) {
	cause := make(chan error, 1)
	r := startCluster(t, map[string]cluster.Handler{"d1": func(ctx context.Context, _ cluster.Job, _ func(terse.Output) error) error {
		<-ctx.Done()
		cause <- context.Cause(ctx)
		return context.Cause(ctx)
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := r.Generate(ctx, longRequest(), func(terse.Output) error { return nil })
	require.Equal(t, terse.CodeDeadline, terse.CodeOf(err))
	require.Equal(t, terse.CodeCancelled, terse.CodeOf(<-cause))
}

func TestHealthNamesTheWedgedWorker(t *testing.T) {
	w := &workers{list: []cluster.Member{{ID: "d0"}, {ID: "d1"}}}
	c := newCluster(nil, w, ClusterOptions{})
	require.NoError(t, c.Health())
	w.list[1].Wedged = "nothing moves"
	require.ErrorContains(t, c.Health(), "worker d1 is wedged: nothing moves")
}
