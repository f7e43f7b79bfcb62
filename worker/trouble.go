package worker

import (
	"fmt"
	"sync"
	"time"

	"github.com/terse-llm/terse"
)

// Transfers are wedged when this many have failed in a row over that long, and
// the last of them not long ago.
const (
	wedgedFailures = 3
	wedgedAfter    = 10 * time.Second
	wedgedFor      = 30 * time.Second
)

// trouble remembers the failures of KV transfers since the last that worked.
type trouble struct {
	mu          sync.Mutex
	failures    int
	first, last time.Time
	why         error
}

// note books how a transfer ended. Only failures of the wire and of the other
// side count: what a request did wrong says nothing about transfers.
func (t *trouble) note(err error, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch code := terse.CodeOf(err); {
	case err == nil:
		t.failures = 0
	case code == terse.CodeTransfer || code == terse.CodeWorkerLost:
		if t.failures == 0 {
			t.first = now
		}
		t.failures, t.last, t.why = t.failures+1, now, err
	}
}

// wedged is nil, or says that transfers do not get through.
func (t *trouble) wedged(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failures < wedgedFailures || t.last.Sub(t.first) < wedgedAfter || now.Sub(t.last) > wedgedFor {
		return nil
	}
	return fmt.Errorf("the last %d KV transfers failed, over %v: %w", t.failures, t.last.Sub(t.first).Round(time.Second), t.why)
}

// wedged says what is wrong with this worker's transfers, "" for nothing.
func (w *Worker) wedged() string {
	err := w.trouble.wedged(time.Now())
	if err == nil && w.server != nil {
		err = w.server.Wedged()
	}
	if err == nil {
		return ""
	}
	return fmt.Sprintf("%.200s", err.Error())
}
