package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/quant"
)

// copying is a replica's pages on their way from another engine in this process. The
// worker there is lost when it should have more than most tokens.
type copying struct {
	from    *rig
	id      string
	view    *quant.View
	held, n int
	most    int
}

func (c *copying) Stop() {}

func (c *copying) Fetch(ctx context.Context) (tokens []terse.Token, err error) {
	if c.n > c.most {
		return nil, &terse.Error{Code: terse.CodeWorkerLost, Message: "lost"}
	}
	sink := newCopier(c.from.cfg.Runner.Geometry(), c.view, c.n)
	sink.hold(c.held)
	err = c.from.Lend(ctx, c.id, c.n, sink, func(all []terse.Token) error {
		if sink.left > 0 {
			return errors.New("pages are missing")
		}
		tokens = all[c.held:]
		return nil
	})
	return tokens, err
}

// keptUp is how much longer steps take of an engine that others are to keep up with.
const keptUp = 10 * time.Millisecond

// paced is a change of a rig whose steps take longer, as pause says in nanoseconds.
func paced(pause *atomic.Int64) func(*Config) {
	return func(c *Config) { c.Runner = modeltest.Walker{Runner: c.Runner, Pause: pause} }
}

// replicate has to keep a replica of up to most tokens of a request that from
// decodes. Where from is faster than that, it begins anew from where that is. It
// returns 0 where the request was over before.
func replicate(t *testing.T, from, to *rig, id string, most int) int {
	t.Helper()
	for {
		n, err := from.LendFrom(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return 0
		}
		most = max(most, n)
		reached := 0
		err = to.Host(t.Context(), id, n, func(view *quant.View, held, n int) Arrival {
			reached = held
			return &copying{from: from, id: id, view: view, held: held, n: n, most: most}
		})
		switch code := terse.CodeOf(err); {
		case code == terse.CodeWorkerLost:
			return reached
		case code == terse.CodeInvalid:
			return 0
		case code != terse.CodeTransfer:
			t.Fatal(err)
		}
	}
}

// What follows behind a replica is what would have followed at the worker that was
// lost, in every format, greedy or drawn; only what the replica has not is computed.
func TestReplicaGoesOnAsBefore(t *testing.T) {
	list := formats()
	if !testing.Short() {
		list = append(list, "kivi,residual=64", "cachegen,delta=10", "kvquant,bits=4")
	}
	for _, format := range list {
		t.Run(format, func(t *testing.T) {
			var pause atomic.Int64
			p, d, other := newRig(t, format, nil).start(t), newRig(t, format, paced(&pause)).start(t), newRig(t, format, nil).start(t)
			for i, most := range []int{192, 256, 384} {
				for try := 0; !goesOnBehindReplica(t, p, d, other, &pause, i, try, most); try++ {
					if try == 5 {
						t.Fatal("five requests were over before a replica was there")
					}
				}
			}
		})
	}
}

// goesOnBehindReplica has request i decoded by d, which p may prefill for, and gone on
// with by other; false where it was over before other had a replica, although d pauses
// until then.
func goesOnBehindReplica(t *testing.T, p, d, other *rig, pause *atomic.Int64, i, try, most int) bool {
	t.Helper()
	const promptLen, n = 230, 400
	req := request(fmt.Sprint("r", i, "-", try), prompt(uint64(10*i+try), promptLen), n)
	if i == 1 {
		req.Sampling.Temperature, req.Sampling.Seed = 1, 7
	}
	var want []terse.Token
	began, done := make(chan struct{}), make(chan error, 1)
	pause.Store(int64(keptUp))
	take := func(o terse.Output) error {
		if want == nil {
			close(began)
		}
		want = append(want, o.Tokens...)
		return nil
	}
	go func() {
		if i == 2 {
			done <- d.Generate(context.Background(), req, take)
			return
		}
		done <- handover(context.Background(), p, d, req, take)
	}()
	<-began
	have := replicate(t, d, other, req.ID, most)
	pause.Store(0)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if have == 0 {
		return false
	}
	if l := other.Load(); !slices.Equal(l.Replicas, []string{req.ID}) || l.KVUsed == 0 {
		t.Errorf("with a replica: %+v", l)
	}
	at := min(max(have+1-promptLen, 1)+20, n-1)
	rest := *req
	rest.Prompt = slices.Concat(req.Prompt, want[:at])
	rest.Resumed = at
	got, last, err := other.collect(context.Background(), &rest)
	if err != nil {
		t.Fatal(err)
	}
	sameTokens(t, fmt.Sprintf("behind %d tokens and a replica of %d", at, have), got, want[at:])
	if last.Timing.Recovered != have {
		t.Errorf("%d tokens came from a replica of %d", last.Timing.Recovered, have)
	}
	waitFor(t, "everything is free", func() bool { return other.Load().KVUsed == 0 && d.Load().KVUsed == 0 })
	if len(other.Load().Replicas) > 0 {
		t.Error("the replica outlives its use")
	}
	return true
}

// A replica goes when its request is over, or nobody wants it any more, and when
// others need its pages; and nobody can ask for what is not there.
func TestReplicaEnds(t *testing.T) {
	var pause atomic.Int64
	d, other := newRig(t, "hq3", paced(&pause)).start(t), newRig(t, "hq3", nil).start(t)
	begin := func(ctx context.Context, id string, tokens int) chan error {
		began, done := make(chan struct{}, tokens), make(chan error, 1)
		go func() {
			done <- d.Generate(ctx, request(id, prompt(1, 200), tokens), func(terse.Output) error { began <- struct{}{}; return nil })
		}()
		<-began
		return done
	}
	host := func(id string) error {
		n, err := d.LendFrom(t.Context(), id)
		if err != nil || n == 0 {
			return notHere(id)
		}
		return other.Host(t.Context(), id, n, func(view *quant.View, held, n int) Arrival {
			return &copying{from: d, id: id, view: view, held: held, n: n, most: 1 << 20}
		})
	}
	done := begin(t.Context(), "a", 200)
	err := host("a")
	for terse.CodeOf(err) == terse.CodeTransfer { // it was not as fast as the other
		err = host("a")
	}
	if terse.CodeOf(err) != terse.CodeInvalid {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if l := other.Load(); len(l.Replicas) > 0 && l.KVUsed > 0 {
		waitFor(t, "the lease of a replica that heard nothing ends", func() bool {
			return other.do(t.Context(), func(e *Engine) { e.release(e.hosted["a"]) }) == nil && other.Load().KVUsed == 0
		})
	}

	ctx, leave := context.WithCancel(t.Context())
	pause.Store(int64(keptUp))
	done = begin(ctx, "b", 1500)
	memory := d.cache.PeakBytes(502, 500) // all of it is needed by a prompt of 500
	other = newRig(t, "hq3", func(c *Config) { c.KVMemory = memory }).start(t)
	if replicate(t, d, other, "b", 256) == 0 || len(other.Load().Replicas) != 1 {
		t.Fatal("no replica")
	}
	if _, _, err := other.collect(t.Context(), request("big", prompt(9, 500), 2)); err != nil {
		t.Error(err)
	}
	if l := other.Load(); len(l.Replicas) > 0 {
		t.Errorf("a replica is still there: %+v", l)
	}
	leave()
	<-done
	if err := d.Lend(t.Context(), "b", 64, &watcher{engine: d.Engine}, nil); terse.CodeOf(err) != terse.CodeInvalid {
		t.Errorf("what is over is lent: %v", err)
	}
	if err := other.Host(t.Context(), "c", 65, nil); terse.CodeOf(err) != terse.CodeInvalid {
		t.Errorf("a replica of 65 tokens: %v", err)
	}
}
