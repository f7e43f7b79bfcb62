package worker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

// A request that another worker is asked to go on with, while it still runs, goes on
// there behind its replica, and says the same; what the two have held is free when
// it is over.
func TestReplicas(t *testing.T) {
	formats := []string{"f16", "hq3", "kivi", "cachegen", "kvquant"}
	if testing.Short() {
		formats = formats[:2]
	}
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			r := newRig(t, format, "prefill-a")
			defer r.stop()
			r.replicas = 1
			r.start("decode-a", format)
			r.replicas = 0
			r.start("decode-b", format)
			r.await(3)
			b := r.workers["decode-b"]
			for i := 0; ; i++ {
				if i == 20 {
					t.Fatal("no request was ever gone on with behind a replica")
				}
				const n = 1500
				r.pause.Store(int64(10 * time.Millisecond)) // until there is a replica
				job := r.job(fmt.Sprint("r", i), prompt(uint64(i), 300), n, "prefill-a", "")
				var tokens []terse.Token
				var rest []terse.Token
				var recovered int
				resumed, at := make(chan error, 1), 0
				err := r.conn.Submit(t.Context(), "decode-a", job, func(o terse.Output) error {
					tokens = append(tokens, o.Tokens...)
					if at > 0 || !slices.Contains(b.cfg.Engine.Load().Replicas, job.Request.ID) {
						return nil
					}
					at = len(tokens)
					r.pause.Store(0)
					next := cluster.Job{Request: job.Request}
					next.Request.Prompt, next.Request.Resumed = slices.Concat(job.Request.Prompt, tokens), at
					go func() {
						resumed <- r.conn.Submit(t.Context(), "decode-b", next, func(o terse.Output) error {
							rest = append(rest, o.Tokens...)
							if o.Timing != nil {
								recovered = o.Timing.Recovered
							}
							return nil
						})
					}()
					return nil
				})
				if err != nil || len(tokens) != n {
					t.Fatalf("%d tokens, %v", len(tokens), err)
				}
				if at == 0 {
					continue // it was over before a replica was there
				}
				if err := <-resumed; err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(rest, tokens[at:]) {
					t.Fatalf("behind %d tokens, %d of them recovered, it goes on otherwise", at, recovered)
				}
				if recovered > 0 {
					t.Logf("request %d: behind %d tokens, %d recovered", i, at, recovered)
					break
				}
			}
			r.awaitFree()
		})
	}
}

// Whoever only decodes computes no prompts for others, replicas or not.
func TestDecodeWorkersPrefillForNobody(t *testing.T) {
	r := newRig(t, "f16")
	defer r.stop()
	r.replicas = 1
	r.start("decode-a", "f16")
	r.start("decode-b", "f16")
	r.await(2)
	if _, _, err := r.ask(t.Context(), r.job("x", prompt(1, 300), 4, "decode-b", "")); terse.CodeOf(err) != terse.CodeInvalid {
		t.Fatalf("got %v", err)
	}
}
