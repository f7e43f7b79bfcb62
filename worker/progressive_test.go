package worker

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/terse-llm/terse/route"
)

// Requests that begin on top planes are answered whole, many at once and some
// cancelled, and hold nothing afterwards.
func TestProgressive(t *testing.T) {
	r := newRig(t, "hq4", "prefill-a")
	defer r.stop()
	r.progressive = route.ProgressiveOn
	r.start("decode-a", "hq4")
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, timing, err := r.ask(t.Context(), r.job("first", prompt(9, 300), 2, "prefill-a", "")); err == nil && timing.KVBytes > 0 {
			break
		} else if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%4 == 3 {
				time.AfterFunc(time.Duration(i)*time.Millisecond, cancel)
			}
			tokens, timing, err := r.ask(ctx, r.job(fmt.Sprint("p", i), prompt(uint64(i), 400+40*i), 150, "prefill-a", ""))
			if i%4 == 3 && ctx.Err() != nil {
				return
			}
			if err != nil || len(tokens) != 150 {
				t.Errorf("request %d: %d tokens, %v", i, len(tokens), err)
				return
			}
			for _, a := range timing.Adopted {
				if a.At%64 != 0 || a.At < 400+40*i || len(a.Pages) == 0 {
					t.Errorf("request %d adopted %+v", i, a)
				}
			}
		})
	}
	wg.Wait()
	r.awaitFree()
}

// A worker does as its job says, says why, and counts what came how.
func TestProgressiveByJob(t *testing.T) {
	r := newRig(t, "hq4", "prefill-a")
	defer r.stop()
	r.progressive = route.ProgressiveAuto
	r.start("decode-a", "hq4")
	var whole int64
	for i, apart := range []bool{false, true} {
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			job := r.job(fmt.Sprint("j", i), prompt(uint64(i), 900), 200, "prefill-a", "")
			job.Apart, job.Planes = apart, fmt.Sprint("because ", i)
			tokens, timing, err := r.ask(t.Context(), job)
			if err != nil && time.Now().Before(limit) {
				continue // it has not joined yet
			}
			if err != nil || len(tokens) != 200 {
				t.Fatal(len(tokens), err)
			}
			if timing.Planes != job.Planes {
				t.Errorf("planes %q, want %q", timing.Planes, job.Planes)
			}
			if !apart {
				whole = timing.KVBytes
			}
			// Every plane comes in 200 steps, apart or not.
			if timing.KVBytes != whole || (timing.KVSecond > 0) != apart {
				t.Errorf("%d bytes, %d of them apart, want %d in all", timing.KVBytes, timing.KVSecond, whole)
			}
			if n := len(timing.Rest()); n > 0 || (timing.Adoption > 0) != (len(timing.Awaited) > 0) || (timing.TopTokens > 0) != (len(timing.Awaited) > 0) {
				t.Errorf("timing %+v", timing)
			}
			break
		}
	}
	r.awaitFree()
}
