package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

func TestLinks(t *testing.T) {
	start := time.Unix(1000, 0)
	var l links
	note := func(after time.Duration, bytes, exposed int64, took, total time.Duration) {
		l.note("p", terse.Timing{KVBytes: bytes, KVExposed: exposed, Transfer: took, TransferTotal: total}, start.Add(after))
	}
	f := func(after time.Duration, want float64) {
		t.Helper()
		if got := l.rates(start.Add(after))["p"]; got != want {
			t.Errorf("after %v: %v bytes/s, want %v", after, got, want)
		}
	}
	f(0, 0)
	note(0, 50e6, 1e4, time.Millisecond, time.Second) // hidden: that says nothing
	f(0, 0)
	note(0, 50e6, 10e6, time.Second, 2*time.Second)
	f(0, 10e6)
	note(1, 50e6, 20e6, time.Second, 2*time.Second)
	f(1, 13e6)
	note(2, 50e6, 0, time.Millisecond, time.Second) // hidden, and faster than was thought
	f(2, 50e6)
	note(3, 50e6, 0, time.Millisecond, 5*time.Second) // hidden: no slower
	f(3, 50e6)
	f(59*time.Second, 50e6)
	f(61*time.Second, 0)
	note(61*time.Second, 50e6, 10e6, time.Second, 2*time.Second) // nothing of the old
	f(62*time.Second, 10e6)
	for i := range cluster.MaxLinks + 10 {
		l.note(fmt.Sprint("q", i), terse.Timing{KVExposed: 1e6, Transfer: time.Second}, start.Add(70*time.Second))
	}
	rates := l.rates(start.Add(70 * time.Second))
	if len(rates) != cluster.MaxLinks || rates["p"] != 0 {
		t.Errorf("%d links; the oldest is there: %v", len(rates), rates["p"] != 0)
	}
}

func TestWireSize(t *testing.T) {
	r := newRig(t, "hq3", "decode-a")
	defer r.stop()
	m := r.workers["decode-a"].record()
	if !(m.KVFixed > 0 && m.KVPerToken > 0 && m.KVSecond > 0 && m.KVSecond < m.KVPerToken) {
		t.Errorf("%v bytes and %v a token, %v of them second planes", m.KVFixed, m.KVPerToken, m.KVSecond)
	}
}
