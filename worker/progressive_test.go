package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/transfer"
	"github.com/terse-llm/terse/transfer/mem"
)

// Requests that begin on top planes are answered whole, many at once and some
// cancelled, and hold nothing afterwards.
func TestProgressive(t *testing.T) {
	r := newRig(t, "hq4", "prefill-a")
	defer r.stop()
	r.progressive = route.ProgressiveOn
	r.start("decode-a", "hq4")
	r.await(2)
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
	r.await(2)
	var whole int64
	for i, apart := range []bool{false, true} {
		job := r.job(fmt.Sprint("j", i), prompt(uint64(i), 900), 200, "prefill-a", "")
		job.Apart, job.Planes = apart, fmt.Sprint("because ", i)
		tokens, timing, err := r.ask(t.Context(), job)
		if err != nil || len(tokens) != 200 {
			t.Fatal(len(tokens), err)
		}
		if timing.Planes != job.Planes {
			t.Errorf("planes %q, want %q", timing.Planes, job.Planes)
		}
		if !apart {
			whole = timing.KVBytes
		}
		// Planes that come apart may not all have come when the last token is out.
		rest := len(timing.Rest())
		if timing.KVBytes > whole || timing.KVBytes < whole && rest == 0 || timing.KVSecond > 0 && !apart || rest > 0 && !apart {
			t.Errorf("%d bytes, %d of them apart, want %d in all but those of %d pages", timing.KVBytes, timing.KVSecond, whole, rest)
		}
		if apart && timing.KVSecond == 0 && len(timing.Awaited) == 0 {
			t.Error("nothing came apart")
		}
		if rest > 0 && timing.Adoption > 0 || rest == 0 && (timing.Adoption > 0) != (len(timing.Awaited) > 0) {
			t.Errorf("timing %+v", timing)
		}
	}
	r.awaitFree()
}

// Whatever happens to the link while second planes are under way, or before, the
// tokens are those of the record that comes with them.
func TestAnyScriptApart(t *testing.T) {
	r := newRigWith(t, 0, brisk, "hq4", "prefill-a", "decode-b")
	defer r.stop()
	r.progressive = route.ProgressiveOn
	r.start("decode-a", "hq4")
	r.await(3)
	r.workers["decode-a"].client.Window = 4096 // a part or two a frame
	relay, err := mem.NewRelay(r.workers["prefill-a"].DataAddr(), mem.Framing{Head: transfer.HeaderLen, Size: transfer.FrameSize}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	var scripts []string
	for _, what := range []string{"drop", "duplicate", "reorder", "truncate", "corrupt", "half-close", "stall", "kill"} {
		for _, frame := range []int{9, 40, 60} {
			if !testing.Short() || frame == 40 {
				scripts = append(scripts, fmt.Sprintf("down conn 0 %s frame %d", what, frame))
			}
		}
	}
	scripts = append(scripts, "down conn 0 delay frame 40 300ms", "up conn 0 kill frame 30", "down conn 0 kill frame 40; down conn 1 kill byte 0; down conn 2 kill byte 0; down conn 3 kill byte 0; down conn 4 kill byte 0")
	onTop, never := 0, 0
	for i, text := range scripts {
		script, err := mem.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		hits := r.workers["prefill-a"].cfg.Engine.Load().PrefixHits
		relay.Set(script)
		relay.Sever()
		p := prompt(uint64(i), 700)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		tokens, timing, err := r.ask(ctx, r.job(fmt.Sprint("s", i), p, 100, "prefill-a", relay.Addr()))
		late := ctx.Err() != nil
		cancel()
		switch code := terse.CodeOf(err); {
		case late:
			t.Fatalf("%s: hung", text)
		case err != nil && code != terse.CodeTransfer && code != terse.CodeWorkerLost:
			t.Errorf("%s: code %s of %v", text, code, err)
		case err != nil || r.workers["prefill-a"].cfg.Engine.Load().PrefixHits != hits: // computed anew behind what was held: in coded formats not to the last bit
			continue
		}
		onTop += timing.TopTokens
		never += len(timing.Rest())
		job := r.job(fmt.Sprint("w", i), p, 100, "", "")
		job.Request.Planes = &timing.PlaneRecord
		var want []terse.Token
		err = r.conn.Submit(t.Context(), "decode-b", job, func(o terse.Output) error {
			want = append(want, o.Tokens...)
			return nil
		})
		if err != nil || !slices.Equal(tokens, want) {
			t.Errorf("%s: %v, want %v, %v; record %+v", text, tokens, want, err, timing.PlaneRecord)
		}
	}
	if onTop == 0 {
		t.Error("no token was computed on top planes")
	}
	t.Logf("%d tokens on top planes, %d pages whose second planes never came", onTop, never)
	r.awaitFree()
}
