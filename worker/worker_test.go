package worker

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/transfer"
	"github.com/terse-llm/terse/transfer/mem"
)

var aborts = flag.Int("aborts", 300, "requests that TestAborts cancels at random moments; 10000 is the full test")

// rig is a cluster in this process: workers over real sockets, an embedded NATS
// server and somebody who submits jobs.
type rig struct {
	t       testing.TB
	server  *cluster.Server
	conn    *cluster.Conn
	workers map[string]*Worker
	cancel  map[string]context.CancelFunc
	running sync.WaitGroup

	progressive route.Progressive // of workers started from now on
	replicas    int               // likewise
	timeouts    transfer.Timeouts // likewise
	pause       atomic.Int64      // ns that a step of any worker takes longer
}

// patience bounds every wait for something that must come; no test measures by it.
const patience = 2 * time.Minute

// calm are timeouts that no machine is too busy for: what happens is the tests' doing.
var calm = transfer.Timeouts{Idle: patience, Ping: 100 * time.Millisecond, Lease: patience}

// brisk are for tests of links that fail, which take as long as silence is borne.
var brisk = transfer.Timeouts{Idle: 800 * time.Millisecond, Ping: 100 * time.Millisecond, Lease: time.Second}

// newRig starts workers named for their role and a letter: "prefill-a".
func newRig(t testing.TB, format string, ids ...string) *rig {
	t.Helper()
	return newRigWith(t, 0, calm, format, ids...)
}

// newRigWith is newRig with replicas of what is decoded, and timeouts of its links.
func newRigWith(t testing.TB, replicas int, to transfer.Timeouts, format string, ids ...string) *rig {
	t.Helper()
	server, err := cluster.StartServer(cluster.ServerOptions{InProcess: true})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, server: server, replicas: replicas, timeouts: to, workers: map[string]*Worker{}, cancel: map[string]context.CancelFunc{}}
	r.conn = r.connect("test")
	for _, id := range ids {
		r.start(id, format)
	}
	r.await(len(ids))
	return r
}

// await waits until so many workers have joined.
func (r *rig) await(n int) {
	r.t.Helper()
	view, err := r.conn.Watch(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	defer view.Close()
	if err := view.Wait(r.t.Context(), func(m []cluster.Member) bool { return len(m) == n }); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) connect(name string) *cluster.Conn {
	r.t.Helper()
	conn, err := cluster.Connect(r.t.Context(), cluster.Options{Server: r.server, Name: name, Beat: patience / 3})
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

func (r *rig) start(id, format string) {
	r.t.Helper()
	role := terse.RolePrefill
	if id[0] == 'd' {
		role = terse.RoleDecode
	}
	ops := cpu.Best(1)
	m, hash := modeltest.Tiny(r.t, 1, ops)
	f, err := quant.ParseFormat(format, false)
	if err != nil {
		r.t.Fatal(err)
	}
	g, err := m.Config.Geometry(f)
	if err != nil {
		r.t.Fatal(err)
	}
	var cal *quant.Calibration // for the format that cannot do without
	if f.Family == quant.FamilyKVQuant {
		cal = cases.Calibration(g.Layers, g.KVHeads, g.HeadDim)
	}
	run, err := model.NewRunner(m, g, cal)
	if err != nil {
		r.t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Runner: modeltest.Walker{Runner: run, Pause: &r.pause}, KVMemory: 64 << 20, MaxSeqs: 16, StepTokens: 128})
	if err != nil {
		r.t.Fatal(err)
	}
	conn := r.connect(id)
	w, err := New(Config{
		ID: id, Role: role, Conn: conn, Engine: e, Geometry: run.Geometry(), Calibration: cal, Model: "tiny", ModelHash: hash, VocabSize: modeltest.Vocab,
		DataListen: "127.0.0.1:0", Drain: time.Second, Progressive: r.progressive, Replicas: r.replicas,
		Timeouts: r.timeouts,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.workers[id], r.cancel[id] = w, cancel
	r.running.Go(func() {
		defer ops.Close()
		defer conn.Close()
		if err := w.Run(ctx); err != nil {
			r.t.Errorf("worker %s: %v", id, err)
		}
	})
}

// stop ends all of it.
func (r *rig) stop() {
	for _, cancel := range r.cancel {
		cancel()
	}
	r.running.Wait()
	r.conn.Close()
	r.server.Shutdown()
}

// prompt is n random tokens of a seed.
func prompt(seed uint64, n int) []terse.Token {
	r := rand.New(rand.NewPCG(seed, 2))
	p := make([]terse.Token, n)
	for i := range p {
		p[i] = terse.Token(2 + r.IntN(modeltest.Vocab-2))
	}
	return p
}

// job asks for n tokens, split between two workers, addr in place of the
// first one's where it is not empty.
func (r *rig) job(id string, p []terse.Token, n int, prefill, addr string) cluster.Job {
	job := cluster.Job{Request: terse.Request{ID: id, Prompt: p, MaxTokens: n, Sampling: terse.Sampling{Logprobs: -1, PromptLogprobs: -1}}}
	if prefill != "" {
		if addr == "" {
			addr = r.workers[prefill].DataAddr()
		}
		job.Prefill = &cluster.Target{WorkerID: prefill, DataAddr: addr}
	}
	return job
}

func (r *rig) ask(ctx context.Context, job cluster.Job) ([]terse.Token, *terse.Timing, error) {
	var tokens []terse.Token
	var timing *terse.Timing
	err := r.conn.Submit(ctx, "decode-a", job, func(o terse.Output) error {
		tokens = append(tokens, o.Tokens...)
		if o.Timing != nil {
			timing = o.Timing
		}
		return nil
	})
	return tokens, timing, err
}

// awaitFree waits until no worker holds anything.
func (r *rig) awaitFree() time.Duration {
	r.t.Helper()
	start := time.Now()
	for {
		held := ""
		for id, w := range r.workers {
			l := w.cfg.Engine.Load()
			if l.Running+l.Waiting > 0 || l.KVUsed > 0 || w.server != nil && w.server.Transfers() > 0 {
				held = fmt.Sprintf("%s holds %+v", id, l)
			}
		}
		if held == "" {
			return time.Since(start)
		}
		if time.Since(start) > patience {
			r.t.Fatal(held)
		}
		time.Sleep(time.Millisecond)
	}
}

// A split request says what an undivided one says.
func TestSplitSaysTheSame(t *testing.T) {
	r := newRig(t, "f16", "prefill-a", "decode-a")
	defer r.stop()
	for i, n := range []int{1, 64, 200, 700} {
		local, _, err := r.ask(t.Context(), r.job(fmt.Sprint("local", i), prompt(uint64(n), n), 20, "", ""))
		if err != nil {
			t.Fatal(err)
		}
		split, timing, err := r.ask(t.Context(), r.job(fmt.Sprint("split", i), prompt(uint64(n), n), 20, "prefill-a", ""))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(local, split) || timing.KVBytes == 0 {
			t.Errorf("prompt of %d: %v split, %v local; %+v", n, split, local, timing)
		}
	}
	r.awaitFree()
}

// Range-coded KV gives the same tokens, and what decoding it takes is told (what coding takes
// may not be known yet when the answer is).
func TestPackingIsTold(t *testing.T) {
	r := newRig(t, "cachegen", "prefill-a", "decode-a")
	defer r.stop()
	p := prompt(9, 700)
	local, _, err := r.ask(t.Context(), r.job("local", p, 20, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	split, timing, err := r.ask(t.Context(), r.job("split", p, 20, "prefill-a", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(local, split) || timing.Unpack <= 0 {
		t.Errorf("%v split, %v local; %+v", split, local, timing)
	}
	r.awaitFree()
}

// Where a job's prefill worker is gone, the next one computes, and the decoder
// says so.
func TestOtherPrefillWorker(t *testing.T) {
	r := newRig(t, "f16", "prefill-a", "prefill-b", "decode-a")
	defer r.stop()
	p := prompt(1, 500)
	job := r.job("x", p, 20, "prefill-a", "127.0.0.1:1")
	job.Others = []cluster.Target{{WorkerID: "prefill-b", DataAddr: r.workers["prefill-b"].DataAddr()}}
	tokens, timing, err := r.ask(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if timing.PrefillWorker != "prefill-b" || timing.Retries != 1 {
		t.Errorf("%+v", timing)
	}
	want, _, err := r.ask(t.Context(), r.job("y", p, 20, "prefill-a", ""))
	if err != nil || !slices.Equal(tokens, want) {
		t.Errorf("%v, want %v, %v", tokens, want, err)
	}
}

// Any script on the link gives the right tokens or a typed error before the
// deadline, and leaves nothing behind.
//
// In f16: there alone a prompt whose prefix is reused says the same to the last bit.
func TestAnyScript(t *testing.T) {
	r := newRigWith(t, 0, brisk, "f16", "prefill-a", "decode-a")
	defer r.stop()
	relay, err := mem.NewRelay(r.workers["prefill-a"].DataAddr(), mem.Framing{Head: transfer.HeaderLen, Size: transfer.FrameSize}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	scripts := 8
	if testing.Short() {
		scripts = 3
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range scripts {
		text := randomScript(random)
		script, err := mem.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		relay.Set(script)
		relay.Sever()
		p := prompt(uint64(i), 600)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		tokens, _, err := r.ask(ctx, r.job(fmt.Sprint("s", i), p, 10, "prefill-a", relay.Addr()))
		late := ctx.Err() != nil
		cancel()
		switch code := terse.CodeOf(err); {
		case late:
			t.Fatalf("%s: hung", text)
		case err != nil && code != terse.CodeTransfer && code != terse.CodeWorkerLost:
			t.Errorf("%s: code %s of %v", text, code, err)
		case err == nil:
			want, _, err := r.ask(t.Context(), r.job(fmt.Sprint("w", i), p, 10, "", ""))
			if err != nil || !slices.Equal(tokens, want) {
				t.Errorf("%s: %v, want %v, %v", text, tokens, want, err)
			}
		}
	}
	r.awaitFree()
}

func randomScript(r *rand.Rand) string {
	text := ""
	for range 1 + r.IntN(3) {
		what := []string{"drop", "reorder", "duplicate", "truncate", "corrupt", "half-close", "stall", "kill"}[r.IntN(8)]
		conn := ""
		if r.IntN(3) > 0 {
			conn = fmt.Sprintf("conn %d ", r.IntN(3))
		}
		text += fmt.Sprintf("%s %s%s frame %d; ", []string{"up", "down", "down"}[r.IntN(3)], conn, what, r.IntN(7))
	}
	return text
}

// Requests that are cancelled at whatever moment leave no page, no lease, no
// goroutine and no descriptor behind.
func TestAborts(t *testing.T) {
	before := descriptors()
	ignore := goleak.IgnoreCurrent()
	func() {
		r := newRigWith(t, 1, calm, "hq3", "prefill-a", "decode-a", "decode-b")
		defer r.stop()
		start := time.Now()
		if _, _, err := r.ask(t.Context(), r.job("whole", prompt(0, 600), 20, "prefill-a", "")); err != nil {
			t.Fatal(err)
		}
		whole := time.Since(start)
		work := make(chan int)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for i := range work {
					ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*whole))
					_, _, err := r.ask(ctx, r.job(fmt.Sprint("a", i), prompt(uint64(i), 300+i%500), 20, "prefill-a", ""))
					cancel()
					if code := terse.CodeOf(err); err != nil && code != terse.CodeCancelled && code != terse.CodeDeadline {
						t.Errorf("abort %d: %v", i, err)
					}
				}
			})
		}
		for i := range *aborts {
			work <- i
		}
		close(work)
		wg.Wait()
		took := r.awaitFree()
		t.Logf("a whole request takes %v; everything was free %v after the last of %d", whole, took, *aborts)
		if _, _, err := r.ask(t.Context(), r.job("after", prompt(1, 600), 20, "prefill-a", "")); err != nil {
			t.Error(err)
		}
	}()
	// What was closed may take a moment to end.
	var left error
	after := 0
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(10 * time.Millisecond) {
		if left, after = goleak.Find(ignore), descriptors(); left == nil && after <= before {
			return
		}
	}
	t.Errorf("%d descriptors are open, before there were %d; %v", after, before, left)
}

var soak = flag.Duration("soak", 0, "how long TestSoak runs")

// For as long as asked: requests through links that fail at random, requests
// that are cancelled, and requests that must say what they said before.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("run with -soak 10m")
	}
	r := newRigWith(t, 1, brisk, "f16", "prefill-a", "prefill-b", "decode-a", "decode-b")
	defer r.stop()
	relay, err := mem.NewRelay(r.workers["prefill-a"].DataAddr(), mem.Framing{Head: transfer.HeaderLen, Size: transfer.FrameSize}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	asked, failed := 0, 0
	for start := time.Now(); time.Since(start) < *soak; asked++ {
		script, err := mem.Parse(randomScript(random))
		if err != nil {
			t.Fatal(err)
		}
		relay.Set(script)
		relay.Sever()
		var wg sync.WaitGroup
		for k := range 3 { // beside it, some that leave
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(20*time.Millisecond))
				defer cancel()
				r.ask(ctx, r.job(fmt.Sprint("leave", asked, k), prompt(uint64(asked*3+k), 500), 20, "prefill-a", relay.Addr()))
			})
		}
		p := prompt(uint64(asked), 200+random.IntN(1500))
		job := r.job(fmt.Sprint("soak", asked), p, 10, "prefill-a", relay.Addr())
		if asked%2 == 0 {
			job.Others = []cluster.Target{{WorkerID: "prefill-b", DataAddr: r.workers["prefill-b"].DataAddr()}}
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		tokens, _, err := r.ask(ctx, job)
		late := ctx.Err() != nil
		cancel()
		wg.Wait()
		if late {
			t.Fatalf("%v: hung", script)
		}
		if code := terse.CodeOf(err); err != nil && code != terse.CodeTransfer && code != terse.CodeWorkerLost {
			t.Fatalf("%v: code %s of %v", script, code, err)
		}
		if err != nil {
			failed++
			continue
		}
		want, _, err := r.ask(t.Context(), r.job(fmt.Sprint("want", asked), p, 10, "", ""))
		if err != nil || !slices.Equal(tokens, want) {
			t.Fatalf("%v: %v, want %v, %v", script, tokens, want, err)
		}
	}
	r.awaitFree()
	t.Logf("%d requests, %d of them failed with a typed error", asked, failed)
}

// descriptors is how many this process has open, 0 where it cannot be known.
func descriptors() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}

// A cancel frees both sides in far less than a step of a long prompt.
func TestCancelFreesBothSides(t *testing.T) {
	r := newRig(t, "hq3", "prefill-a", "decode-a")
	defer r.stop()
	var took []time.Duration
	for i := range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.ask(ctx, r.job(fmt.Sprint("c", i), prompt(uint64(i+50), 1900), 20, "prefill-a", ""))
		}()
		for r.workers["prefill-a"].cfg.Engine.Load().Running == 0 {
			select {
			case <-done:
			case <-time.After(time.Millisecond):
				continue
			}
			break
		}
		cancel()
		<-done
		took = append(took, r.awaitFree())
	}
	slices.Sort(took)
	t.Logf("both sides were free after %v (median), %v at most", took[len(took)/2], took[len(took)-1])
}

// A conversation's next turn moves only what the decoder does not hold of it:
// neither the prompt before nor its own answer crosses again.
func TestNextTurnMovesLess(t *testing.T) {
	r := newRig(t, "f16", "prefill-a", "decode-a")
	defer r.stop()
	whole := newRig(t, "f16", "decode-a")
	defer whole.stop()
	turn := prompt(1, 500)
	perToken := int64(0)
	for i := range 3 {
		got, timing, err := r.ask(t.Context(), r.job(fmt.Sprint("turn", i), turn, 80, "prefill-a", ""))
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := whole.ask(t.Context(), whole.job(fmt.Sprint("whole", i), turn, 80, "", ""))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("turn %d: %v, want %v, %v", i, got, want, err)
		}
		if i == 0 {
			perToken = timing.KVBytes / int64(len(turn))
		}
		// All but the page that was open, the token that was never computed, and
		// what is new.
		if most := perToken * (64 + 1 + 50); i > 0 && timing.KVBytes > most || timing.KVBytes+timing.KVBytesHeld != perToken*int64(len(turn)) {
			t.Errorf("turn %d of %d tokens: %d bytes moved, %d were held, at %d a token", i, len(turn), timing.KVBytes, timing.KVBytesHeld, perToken)
		}
		turn = slices.Concat(turn, got, prompt(uint64(i+5), 50))
	}
	r.awaitFree()
}
