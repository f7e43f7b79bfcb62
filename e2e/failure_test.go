package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

// fleet is a cluster on loopback that something is going to happen to.
type fleet struct {
	nats    string
	gateway api
	records *cluster.Conn
	workers map[string]*process
}

// newFleet starts workers named for their role and a letter: "prefill-a".
func newFleet(t *testing.T, ids ...string) *fleet {
	t.Helper()
	return newFleetWith(t, nil, nil, ids...)
}

// newFleetWith is newFleet with flags for all workers and for decode workers.
func newFleetWith(t *testing.T, all, decode []string, ids ...string) *fleet {
	t.Helper()
	h := loopback()
	f := &fleet{nats: h.nats(t), workers: map[string]*process{}}
	for _, id := range ids {
		role, _, _ := strings.Cut(id, "-")
		args := append([]string{"--threads", "1"}, all...)
		if role == "decode" {
			args = append(args, decode...)
		}
		f.workers[id] = h.worker(t, f.nats, role, id, args...)
	}
	f.gateway = h.gateway(t, f.nats, nil, ids...)
	f.records = observer(t, f.nats)
	return f
}

// await waits until a worker's record is as wanted.
func (f *fleet) await(t *testing.T, id, what string, ok func(cluster.Member) bool) {
	t.Helper()
	awaitMember(t, f.records, id, what, ok)
}

// awaitIdle waits until the workers that are left hold nothing.
func (f *fleet) awaitIdle(t *testing.T) {
	t.Helper()
	for id, p := range f.workers {
		if p.running() {
			f.await(t, id, "idle", idle)
		}
	}
	f.gateway.awaitFree()
}

// wantRight compares an answer with that of an undisturbed process.
func wantRight(t *testing.T, got answer, q question) {
	t.Helper()
	if got.status != http.StatusOK {
		t.Fatalf("status %d: %s", got.status, got.body)
	}
	s := loopback().serve(t)
	defer s.stop()
	same(t, "after the failure", got, s.ask(q))
}

// wantFault wants an error answer with a code that says to try again.
func wantFault(t *testing.T, got answer, codes ...terse.Code) {
	t.Helper()
	if got.status != http.StatusServiceUnavailable || !slices.Contains(codes, terse.Code(got.fault.Code)) || got.fault.Message == "" {
		t.Errorf("status %d, %+v; want 503 with one of %q", got.status, got.fault, codes)
	}
}

// slow is a prompt whose prefill takes long enough to be seen and interrupted.
func slow(t *testing.T, n int) question { return greedy(passage(t, 0, 7800), n) }

// beginSlow asks for q and returns in the middle of its prefill, which prefill-a, of
// equals the first by name, takes its time for until release.
func (f *fleet) beginSlow(t *testing.T, ctx context.Context, q question) (asked *asking, release func()) {
	t.Helper()
	release = f.workers["prefill-a"].throttle()
	asked = f.gateway.begin(ctx, q)
	f.await(t, "prefill-a", "busy", busy)
	return asked, release
}

func TestPrefillWorkerDies(t *testing.T) {
	needFull(t)
	f := func(name string, others ...string) {
		t.Run(name, func(t *testing.T) {
			fl := newFleet(t, append([]string{"prefill-a", "decode-a"}, others...)...)
			q := slow(t, 8)
			asked, _ := fl.beginSlow(t, t.Context(), q)
			fl.workers["prefill-a"].kill()
			got := asked.wait()
			wantRight(t, got, q)
			want := "decode-a" // nobody else prefills, so the decoder does
			if len(others) > 0 {
				want = others[0]
			}
			if got.timing.Retries != 1 || got.timing.Prefill != want {
				t.Errorf("prefilled again by %q in try %d, want %q in 1", got.timing.Prefill, got.timing.Retries, want)
			}
			fl.awaitIdle(t)
		})
	}
	f("another is there", "prefill-b")
	f("no other is there")
}

func TestDecodeWorkerDiesBeforeItsFirstToken(t *testing.T) {
	needFull(t)
	f := func(name string, check func(*testing.T, answer, question), others ...string) {
		t.Run(name, func(t *testing.T) {
			fl := newFleet(t, append([]string{"prefill-a", "decode-a"}, others...)...)
			q := slow(t, 8)
			asked, release := fl.beginSlow(t, t.Context(), q)
			fl.workers["decode-a"].kill()
			release()
			check(t, asked.wait(), q)
			fl.awaitIdle(t)
		})
	}
	f("another is there", func(t *testing.T, a answer, q question) {
		wantRight(t, a, q)
		if a.timing.Retries != 1 || a.timing.Decode != "decode-b" {
			t.Errorf("timing %+v", a.timing)
		}
	}, "decode-b")
	f("no other is there", func(t *testing.T, a answer, _ question) {
		wantFault(t, a, terse.CodeWorkerLost, terse.CodeNoWorker)
	})
}

// Tokens that the client has are gone on from by another worker, and what comes is
// what would have come, greedy or drawn; where there is none, the stream says so.
func TestDecodeWorkerDiesInMidStream(t *testing.T) {
	fl := newFleet(t, "prefill-a", "decode-a", "decode-b")
	for i, temperature := range []float64{0, 1} {
		if i > 0 && !*full {
			break
		}
		q := greedy(passage(t, 1000*i, 300), 800)
		q.Temperature, q.Seed = temperature, 11
		fl.workers["decode-a"].throttle() // it has to die before it has said all
		a := fl.beginStream(t, q, 30)
		fl.workers["decode-a"].kill() // of equals the first by name was taken
		if err := a.rest(); err != nil {
			t.Fatalf("after %d chunks the stream ended by %v", a.chunks, err)
		}
		fl.gateway.awaitLog(`a worker did not finish a request.* without=decode-a tokens=[1-9]`)
		fl.awaitIdle(t)
		undisturbed := loopback().serve(t)
		if want := undisturbed.ask(q).Choices[0].Text; a.text.String() != want {
			t.Errorf("temperature %v: after decode-a was lost the answer is\n%q, want\n%q", temperature, a.text.String(), want)
		}
		undisturbed.stop()
		fl.add(t, "decode-a")
		fl.await(t, "decode-a", "back", idle)
	}
	fl.workers["decode-a"].throttle()
	fl.workers["decode-b"].throttle()
	a := fl.beginStream(t, greedy(passage(t, 30, 300), 3000), 3)
	for _, id := range []string{"decode-a", "decode-b"} {
		fl.workers[id].kill()
	}
	err := a.rest()
	var fault *streamFault
	if !errors.As(err, &fault) || fault.Code != string(terse.CodeWorkerLost) {
		t.Errorf("after %d chunks the stream ended by %v, want an event with code %s", a.chunks, err, terse.CodeWorkerLost)
	}
	fl.awaitIdle(t)
}

// add starts another worker, or one anew, and waits until the gateway knows it.
func (f *fleet) add(t *testing.T, id string, args ...string) {
	t.Helper()
	joined := regexp.MustCompile(`member joined.* id=` + id + ` `)
	lives := func() int { return len(joined.FindAllString(f.gateway.log.String(), -1)) }
	before := lives()
	role, _, _ := strings.Cut(id, "-")
	f.workers[id] = loopback().worker(t, f.nats, role, id, append(args, "--threads", "1")...)
	if !poll(func() bool { return lives() > before }) {
		t.Fatalf("the gateway never hears of %s", id)
	}
}

// beginStream asks and reads some chunks.
func (f *fleet) beginStream(t *testing.T, q question, chunks int) *stream {
	t.Helper()
	s, err := f.gateway.stream(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	for range chunks {
		if err := s.next(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// SIGTERM lets an answer that has begun finish.
func TestTermDrains(t *testing.T) {
	const tokens = 60
	// drains signals a process while a stream goes through it.
	drains := func(t *testing.T, a api, p *process, q question, first int) {
		t.Helper()
		s, err := a.stream(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		for range first {
			if err := s.next(); err != nil {
				t.Fatal(err)
			}
		}
		p.signal(syscall.SIGTERM)
		if err := s.rest(); err != nil {
			t.Errorf("%s was asked to stop, and the answer broke off after %d chunks: %v", p.name, s.chunks, err)
		}
		if status := p.exit(); status != 0 {
			t.Errorf("%s exited with status %d", p.name, status)
		}
	}
	t.Run("serve", func(t *testing.T) {
		s := loopback().serve(t, "--drain", patience.String())
		drains(t, s, s.process, greedy(passage(t, 0, 300), tokens), 3)
		if n := strings.Count(s.log.String(), `msg="member joined"`); n != 2 {
			t.Errorf("one process with two workers logs %d times that one joined", n)
		}
	})
	for _, id := range []string{"decode-a", "gateway"} {
		t.Run(id, func(t *testing.T) {
			needFull(t)
			fl := newFleet(t, "prefill-a", "decode-a")
			p := fl.workers[id]
			if id == "gateway" {
				p = fl.gateway.process
			}
			drains(t, fl.gateway, p, greedy(passage(t, 0, 300), tokens), 3)
		})
	}
}

// An answer that outlasts --drain breaks off, and the process ends all the same.
func TestTermBreaksOff(t *testing.T) {
	s := loopback().serve(t, "--drain", "1ms")
	release := s.throttle() // no machine answers all of it in time
	answer, err := s.stream(t.Context(), greedy(passage(t, 0, 300), 2000))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.close()
	if err := answer.next(); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGTERM)
	release()
	if err := answer.rest(); err == nil {
		t.Errorf("all of the answer came, %d chunks", answer.chunks)
	}
	if status := s.exit(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// A worker or a server that is asked to stop while it prefills finishes that too.
func TestTermDrainsPrefill(t *testing.T) {
	needFull(t)
	q := slow(t, 4)
	t.Run("prefill worker", func(t *testing.T) {
		fl := newFleet(t, "decode-a")
		fl.add(t, "prefill-a", "--drain", patience.String())
		asked, release := fl.beginSlow(t, t.Context(), q)
		fl.workers["prefill-a"].signal(syscall.SIGTERM)
		release()
		got := asked.wait()
		wantRight(t, got, q)
		if got.timing.Retries != 0 {
			t.Errorf("the prompt was computed again: %+v", got.timing)
		}
		if status := fl.workers["prefill-a"].exit(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
	t.Run("serve", func(t *testing.T) {
		s := loopback().serve(t, "--drain", patience.String())
		release := s.throttle()
		asked := s.begin(t.Context(), greedy(passage(t, 0, 1000), 4))
		if !poll(func() bool { return s.metric("vllm:num_requests_running") > 0 }) {
			t.Fatal("the request never runs")
		}
		s.signal(syscall.SIGTERM)
		release()
		if got := asked.wait(); got.status != http.StatusOK {
			t.Errorf("status %d: %s", got.status, got.body)
		}
		if status := s.exit(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
}

// A decode worker that is asked to stop gets nothing new from then on, and what it has
// not finished in time another one goes on with, behind its replica where it has one;
// the client does not notice.
func TestTermHandsOver(t *testing.T) {
	needFull(t)
	for _, replicas := range []string{"0", "1"} {
		t.Run("replicas "+replicas, func(t *testing.T) {
			fl := newFleetWith(t, nil, []string{"--replicas", replicas, "--drain", "400ms"}, "prefill-a", "decode-a", "decode-b")
			q := greedy(passage(t, 0, 600), 1500)
			release := fl.workers["decode-a"].throttle() // what drains is not to end before it has to
			a := fl.beginStream(t, q, 100)
			if replicas != "0" {
				fl.await(t, "decode-b", "with a replica", func(m cluster.Member) bool { return len(m.Replicas) > 0 })
			}
			fl.workers["decode-a"].signal(syscall.SIGTERM)
			fl.gateway.awaitLog(`member left.* id=decode-a `)
			if got := fl.gateway.ask(greedy(passage(t, 900, 300), 2)); got.timing.Decode != "decode-b" {
				t.Errorf("a request went to %q after decode-a had said that it leaves", got.timing.Decode)
			}
			if err := a.rest(); err != nil {
				t.Fatalf("after %d chunks the stream ended by %v", a.chunks, err)
			}
			release()
			if status := fl.workers["decode-a"].exit(); status != 0 {
				t.Errorf("decode-a exited with status %d", status)
			}
			said := fl.gateway.awaitLog(`completion_tokens=1500 .*decode_worker=decode-b .*replayed_tokens=(\d+) recovered_tokens=(\d+)`)
			t.Logf("handed over behind %s tokens; %s came from a replica", said[1], said[2])
			if said[1] == "0" || said[2] == "0" != (replicas == "0") {
				t.Errorf("handed over behind %s tokens, %s of them from a replica", said[1], said[2])
			}
			fl.awaitIdle(t)
			undisturbed := loopback().serve(t)
			defer undisturbed.stop()
			if want := undisturbed.ask(q).Choices[0].Text; a.text.String() != want {
				t.Errorf("handed over, the answer is\n%q, want\n%q", a.text.String(), want)
			}
		})
	}
}

// Clients that leave, at whatever moment, leave nothing behind.
func TestAbortsFreeEverything(t *testing.T) {
	aborts, most := 200, 1500*time.Millisecond
	if !*full {
		aborts, most = 20, 500*time.Millisecond
	}
	var left atomic.Int32
	fl := newFleetWith(t, nil, []string{"--replicas", "1"}, "prefill-a", "decode-a", "decode-b")
	var wg sync.WaitGroup
	work := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range work {
				if fl.abort(t, i, time.Duration(rand.Int64N(int64(most)))) {
					left.Add(1)
				}
			}
		})
	}
	for i := range aborts {
		work <- i
	}
	close(work)
	wg.Wait()
	if left.Load() == 0 {
		t.Error("every request ended before its client left")
	}
	fl.awaitIdle(t)
	fl.gateway.ask(greedy(passage(t, 5, 300), 4))
	fl.awaitIdle(t)
}

// abort asks something of its own and leaves after a while, false if it ended first.
func (f *fleet) abort(t *testing.T, i int, after time.Duration) bool {
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	q := greedy(passage(t, 37*i%7000, 270+i%60), 1000)
	s, err := f.gateway.stream(ctx, q)
	if err == nil {
		err = s.rest()
		s.close()
	}
	if err != nil && ctx.Err() == nil {
		t.Errorf("abort %d: %v", i, err)
	}
	return err != nil
}

// A request that its client gives up on stops being computed.
func TestDisconnectStopsPrefill(t *testing.T) {
	needFull(t)
	fl := newFleet(t, "prefill-a", "decode-a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked, release := fl.beginSlow(t, ctx, slow(t, 100))
	cancel()
	<-asked.done
	release()
	fl.awaitIdle(t)
	for id, w := range fl.workers {
		if !w.running() {
			t.Errorf("%s is gone", id)
		}
	}
	fl.gateway.awaitLog(fmt.Sprintf(`endpoint=completions.* status=%d `, 499))
}

// A gateway that is killed in mid answer leaves nothing behind at the workers.
func TestGatewayDies(t *testing.T) {
	needFull(t)
	fl := newFleetWith(t, nil, []string{"--replicas", "1"}, "prefill-a", "decode-a", "decode-b")
	for name, begin := range map[string]func(api) func(){
		"in decode": func(g api) func() {
			s, err := g.stream(t.Context(), greedy(passage(t, 0, 300), 3000))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.next(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.close)
			return func() {}
		},
		"in prefill": func(g api) func() {
			release := fl.workers["prefill-a"].throttle()
			g.begin(t.Context(), slow(t, 8))
			fl.await(t, "prefill-a", "busy", busy)
			return release
		},
	} {
		g := loopback().gateway(t, fl.nats, nil, "prefill-a", "decode-a", "decode-b")
		release := begin(g)
		g.kill()
		release()
		for id := range fl.workers {
			fl.await(t, id, "idle after the gateway died "+name, idle)
		}
	}
	fl.gateway.ask(greedy(passage(t, 20, 300), 2))
}

// A prefill worker that dies after its hand-over is not missed.
func TestPrefillWorkerDiesAfterTheHandover(t *testing.T) {
	needFull(t)
	fl := newFleet(t, "prefill-a", "decode-a")
	q := greedy(passage(t, 0, 300), 400)
	s, err := fl.gateway.stream(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.next(); err != nil {
		t.Fatal(err)
	}
	fl.workers["prefill-a"].kill()
	if err := s.rest(); err != nil {
		t.Errorf("the answer broke off: %v", err)
	}
	fl.awaitIdle(t)
}
