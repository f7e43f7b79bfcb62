package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/gateway"
	"github.com/terse-llm/terse/transfer"
	"github.com/terse-llm/terse/transfer/mem"
)

// told is what a request's outputs said.
type told struct {
	tokens []terse.Token
	timing terse.Timing // the last
}

func (a *told) take(o terse.Output) error {
	a.tokens = append(a.tokens, o.Tokens...)
	if o.Timing != nil {
		a.timing = *o.Timing
	}
	return nil
}

// A decode worker dies whose second planes are still under way. Another one goes on
// by the record that came with the tokens, greedy or drawn, and says the same as a
// third that follows the whole record from the beginning.
func TestDecodeWorkerDiesOnTopPlanes(t *testing.T) {
	h := loopback()
	nats, data := h.nats(t), freeAddress(t)
	relay, err := mem.NewRelay(data, mem.Framing{Head: transfer.HeaderLen, Size: transfer.FrameSize}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { relay.Close() })
	args := []string{"--kv", "hq4", "--progressive", "on", "--threads", "1"}
	h.worker(t, nats, "prefill", "prefill-a", append([]string{"--data-listen", data, "--data-advertise", relay.Addr()}, args...)...)
	dying := h.worker(t, nats, "decode", "decode-a", args...)
	h.worker(t, nats, "decode", "decode-b", args...)
	conn, err := cluster.Connect(t.Context(), cluster.Options{URL: nats, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	view := observer(t, nats)
	await := func(ids ...string) {
		for _, id := range ids {
			awaitMember(t, view, id, "idle", idle)
		}
	}
	await("prefill-a", "decode-a", "decode-b")
	dispatcher := gateway.NewCluster(conn, view, gateway.ClusterOptions{LocalBelow: -1})
	const n = 200
	request := func(id string, at int, s terse.Sampling) *terse.Request {
		s.Logprobs, s.PromptLogprobs = -1, -1
		return &terse.Request{ID: id, Prompt: passage(t, at, 1000), MaxTokens: n, Sampling: s}
	}
	// Undisturbed, to learn how many bytes cross before the second planes.
	var whole told
	if err := dispatcher.Generate(t.Context(), request("whole", 0, terse.Sampling{}), whole.take); err != nil {
		t.Fatal(err)
	}
	if len(whole.timing.Rest()) > 0 || whole.timing.KVSecond == 0 {
		t.Fatalf("undisturbed: %+v", whole.timing)
	}
	before := whole.timing.KVBytes - whole.timing.KVSecond/2
	dies := func(id string, at int, s terse.Sampling) (onTop bool) {
		setScript(t, relay, fmt.Sprintf("down stall byte %d", before))
		await("decode-a", "decode-b")
		req := request(id, at, s)
		var got told
		var then terse.PlaneRecord
		err := dispatcher.Generate(t.Context(), req, func(o terse.Output) error {
			err := got.take(o)
			if len(got.tokens) == 30 && dying.running() {
				then = got.timing.PlaneRecord
				dying.kill()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.timing.Rest()) > 0 || got.timing.Replayed == 0 || got.timing.DecodeWorker != "decode-b" {
			t.Errorf("record when decode-a died: %+v, in the end: %+v", then, got.timing)
		}
		// A worker of its own: what reuses a prefix reads it otherwise.
		reference := "by-record-" + id
		p := h.worker(t, nats, "decode", reference, args...)
		await(reference)
		same := *req
		same.Planes = &got.timing.PlaneRecord
		var want told
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := conn.Submit(ctx, reference, cluster.Job{Request: same}, want.take); err != nil {
			t.Fatal(err)
		}
		p.stop()
		if len(got.tokens) != n || !slices.Equal(got.tokens, want.tokens) {
			t.Errorf("%s: %v, by the record %+v %v", id, got.tokens, got.timing.PlaneRecord, want.tokens)
		}
		dying = h.worker(t, nats, "decode", "decode-a", args...)
		await("decode-a")
		return len(then.Rest()) > 0
	}
	for i, s := range []terse.Sampling{{}, {Temperature: 1, Seed: 11}} {
		if i > 0 && !*full {
			break
		}
		struck := false
		for try := 0; try < 3 && !struck; try++ { // a slow machine may see the link come back first
			struck = dies(fmt.Sprintf("dies-%d-%d", i, try), 1000+1000*(3*i+try), s)
		}
		if !struck {
			t.Error("decode-a always had all planes when it died")
		}
	}
}
