package worker

import (
	"testing"
	"time"

	"github.com/terse-llm/terse"
)

func TestTrouble(t *testing.T) {
	lost := &terse.Error{Code: terse.CodeWorkerLost, Message: "gone"}
	invalid := &terse.Error{Code: terse.CodeInvalid, Message: "bad"}
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var x trouble
	f := func(seconds int, want bool) {
		t.Helper()
		if got := x.wedged(at(seconds)) != nil; got != want {
			t.Errorf("after %d s: wedged %v", seconds, got)
		}
	}
	f(0, false)
	x.note(lost, at(0))
	x.note(lost, at(1))
	x.note(lost, at(2))
	f(3, false) // not for long enough
	x.note(invalid, at(4))
	x.note(lost, at(11))
	f(12, true)
	f(42, false) // nothing has been tried since
	x.note(lost, at(50))
	f(51, true)
	x.note(nil, at(52))
	f(52, false)
}
