package serving

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/workload"
)

// Options say how a workload is replayed.
type Options struct {
	Targets  []Target
	Workload *workload.Workload
	Prompts  *Prompts
	Rounds   int // parts that the workload is cut into; at most as many as requests
	// Concurrency keeps this many requests running, whatever the workload's arrivals;
	// 0 sends them as they arrive.
	Concurrency int
	Timeout     time.Duration      // of a request; 0 = none
	Progress    func(done float64) // 0 to 1; may be nil
}

// maxRunning bounds the requests of a part that arrive faster than they are
// answered.
const maxRunning = 4096

// Run replays the workload at every target.
func Run(ctx context.Context, o Options) (*Report, error) {
	n := len(o.Workload.Requests)
	if n == 0 || len(o.Targets) == 0 {
		return nil, errors.New("cannot replay: there are no requests or no endpoints")
	}
	if o.Concurrency == 0 && !o.Workload.Arrivals {
		return nil, fmt.Errorf("cannot replay %s as it arrived: it has no arrivals; give a rate or a concurrency", o.Workload.Name)
	}
	r := &replay{Options: o, peaks: make([]int64, len(o.Targets)), spent: make([]float64, len(o.Targets))}
	r.Rounds = min(max(1, r.Rounds), n)
	r.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: maxRunning}}
	defer r.client.CloseIdleConnections()
	for i := range o.Targets {
		if err := r.warm(ctx, &o.Targets[i]); err != nil {
			return nil, err
		}
	}
	for round := range r.Rounds {
		first, end := round*n/r.Rounds, (round+1)*n/r.Rounds
		for turn := range o.Targets {
			i := (turn + round) % len(o.Targets)
			if err := r.part(ctx, i, round, first, end); err != nil {
				return nil, err
			}
		}
	}
	return r.report(), nil
}

type replay struct {
	Options
	client   *http.Client
	mu       sync.Mutex
	outcomes []Outcome
	peaks    []int64   // bytes of KV cache, by target
	spent    []float64 // seconds of its parts, by target
}

// warmTokens are enough for a prompt to be split and for codes to be attended to.
const warmTokens = 640

// warm sends two requests that do not count: connections, page tables and the
// server's estimates are there then.
func (r *replay) warm(ctx context.Context, t *Target) error {
	for i := range 2 {
		prompt := r.Prompts.unique(-1-i, min(warmTokens, r.longest()))
		if o := t.ask(ctx, r.client, prompt, 4, time.Now()); o.Error != "" {
			return fmt.Errorf("cannot measure %s: %s", t.Name, o.Error)
		}
	}
	return nil
}

func (r *replay) longest() int {
	most := 1
	for _, q := range r.Workload.Requests {
		most = max(most, q.Input)
	}
	return most
}

// part lets target i answer requests first to end.
func (r *replay) part(ctx context.Context, i, round, first, end int) error {
	stop := r.watch(i)
	defer stop()
	start := time.Now()
	running := make(chan struct{}, maxRunning)
	if r.Concurrency > 0 {
		running = make(chan struct{}, r.Concurrency)
	}
	var all sync.WaitGroup
	defer all.Wait()
	for n := first; n < end; n++ {
		arrival := time.Now()
		if r.Concurrency == 0 {
			arrival = start.Add(r.Workload.Requests[n].At - r.Workload.Requests[first].At)
			if err := sleep(ctx, time.Until(arrival)); err != nil {
				return err
			}
		}
		select {
		case running <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if r.Concurrency > 0 {
			arrival = time.Now()
		}
		all.Go(func() {
			defer func() { <-running }()
			r.request(ctx, i, round, n, arrival)
		})
	}
	all.Wait()
	r.spent[i] += time.Since(start).Seconds()
	return ctx.Err()
}

func (r *replay) request(ctx context.Context, i, round, n int, arrival time.Time) {
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, arrival.Add(r.Timeout), fmt.Errorf("no answer within %v", r.Timeout))
		defer cancel()
	}
	q := &r.Workload.Requests[n]
	o := r.Targets[i].ask(ctx, r.client, r.Prompts.Of(n, q, r.Workload.BlockTokens), q.Output, arrival)
	o.Round, o.Number = round, n
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcomes = append(r.outcomes, o)
	if r.Progress != nil {
		r.Progress(float64(len(r.outcomes)) / float64(len(r.Targets)*len(r.Workload.Requests)))
	}
}

// watch notes the most KV that a target holds until stop.
func (r *replay) watch(i int) (stop func()) {
	held := r.Targets[i].HeldKV
	if held == nil {
		return func() {}
	}
	done := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			r.peaks[i] = max(r.peaks[i], held())
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		close(done)
		watcher.Wait()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Prompts makes prompts out of running text. Requests that begin with the same
// blocks get the same tokens there, and others do not.
type Prompts struct {
	Source []terse.Token // running text
	Seed   uint64
}

// markTokens begin every block with what no other block begins with.
const markTokens = 4

// Of is the prompt of request n.
func (p *Prompts) Of(n int, q *workload.Request, blockTokens int) []terse.Token {
	if q.Blocks == nil {
		return p.unique(n, q.Input)
	}
	prompt := make([]terse.Token, 0, q.Input)
	for _, id := range q.Blocks {
		prompt = p.append(prompt, mix(uint64(id)^p.Seed), min(blockTokens, q.Input-len(prompt)))
	}
	return p.append(prompt, mix(p.Seed+uint64(n)*2+1), q.Input-len(prompt)) // where blocks were scaled
}

// unique is a prompt that shares nothing.
func (p *Prompts) unique(n, length int) []terse.Token {
	return p.append(make([]terse.Token, 0, length), mix(p.Seed+uint64(int64(n))*2+1), length)
}

// append adds length tokens that are a function of key.
func (p *Prompts) append(to []terse.Token, key uint64, length int) []terse.Token {
	at := int(key % uint64(len(p.Source)))
	for i := range length {
		if i < markTokens {
			key = mix(key)
			to = append(to, p.Source[key%uint64(len(p.Source))])
			continue
		}
		to = append(to, p.Source[(at+i)%len(p.Source)])
	}
	return to
}

// mix is splitmix64's finaliser: a permutation that spreads every bit.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
