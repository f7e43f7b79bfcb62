package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/terse-llm/terse/cluster"
)

// A decode worker that is killed in the middle of an answer, of which another one
// keeps a replica: that one goes on with what would have come, in every kind of format,
// greedy or drawn, and computes less again than the prompt alone has. Nothing is held
// afterwards.
func TestDecodeWorkerDiesWithAReplica(t *testing.T) {
	diesWithAReplica(t, "hq3", 0)
	if *full {
		diesWithAReplica(t, "hq3", 1)
		for _, kv := range []string{"f16", "hack", "int4", "kivi", "cachegen", "kvquant"} {
			diesWithAReplica(t, kv, 0)
		}
	}
}

func diesWithAReplica(t *testing.T, kv string, temperature float64) {
	t.Run(fmt.Sprintf("%s/%v", kv, temperature), func(t *testing.T) {
		fl := newFleetWith(t, []string{"--kv", kv}, []string{"--replicas", "1"}, "prefill-a", "decode-a", "decode-b")
		q := greedy(passage(t, 0, 600), 1200)
		q.Temperature, q.Seed = temperature, 11
		fl.workers["decode-a"].throttle() // it has to die before it has said all
		a := fl.beginStream(t, q, 100)
		fl.await(t, "decode-b", "with a replica", func(m cluster.Member) bool { return len(m.Replicas) > 0 })
		fl.workers["decode-a"].kill() // of equals the first by name was taken
		if err := a.rest(); err != nil {
			t.Fatalf("after %d chunks the stream ended by %v", a.chunks, err)
		}
		said := fl.gateway.awaitLog(fmt.Sprintf(`prompt_tokens=(\d+) .*completion_tokens=%d .*decode_worker=decode-b .*replayed_tokens=(\d+) recovered_tokens=(\d+)`, q.MaxTokens))
		var n []int
		for _, s := range said[1:] {
			v, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			n = append(n, v)
		}
		t.Logf("a prompt of %d tokens and an answer lost behind %d: %d came from the replica", n[0], n[1], n[2])
		if slices.Contains(n, 0) || n[0]+n[1]-n[2] >= n[0] {
			t.Errorf("of a prompt of %d tokens and %d generated ones only %d came from the replica", n[0], n[1], n[2])
		}
		if got := fl.gateway.metric("terse_request_recovered_tokens_total"); got == 0 {
			t.Error("terse_request_recovered_tokens_total stays 0")
		}
		fl.awaitIdle(t)
		undisturbed := loopback().serve(t, "--kv", kv)
		defer undisturbed.stop()
		if want := undisturbed.ask(q).Choices[0].Text; a.text.String() != want {
			t.Errorf("after decode-a was lost the answer is\n%q, want\n%q", a.text.String(), want)
		}
	})
}

// A worker that keeps a replica is not missed when it is killed, and neither is what
// it held: another one keeps one from then on.
func TestReplicaHolderDies(t *testing.T) {
	needFull(t)
	fl := newFleetWith(t, nil, []string{"--replicas", "1"}, "prefill-a", "decode-a", "decode-b", "decode-c")
	q := greedy(passage(t, 0, 600), 6500)
	fl.workers["decode-a"].throttle()
	a := fl.beginStream(t, q, 100)
	holds := func(m cluster.Member) bool { return len(m.Replicas) > 0 }
	fl.await(t, "decode-b", "with a replica", holds)
	fl.workers["decode-b"].kill()
	fl.await(t, "decode-c", "with a replica", holds)
	fl.workers["decode-a"].kill()
	if err := a.rest(); err != nil {
		t.Fatalf("after %d chunks the stream ended by %v", a.chunks, err)
	}
	fl.gateway.awaitLog(`decode_worker=decode-c .*replayed_tokens=[1-9]\d* recovered_tokens=[1-9]`)
	fl.awaitIdle(t)
	undisturbed := loopback().serve(t)
	defer undisturbed.stop()
	if want := undisturbed.ask(q).Choices[0].Text; a.text.String() != want {
		t.Errorf("the answer is\n%q, want\n%q", a.text.String(), want)
	}
}
