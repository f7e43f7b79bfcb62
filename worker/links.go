package worker

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/transfer"
)

// links remembers how fast KV came from each prefill worker.
type links struct {
	mu   sync.Mutex
	list map[string]link
}

type link struct {
	rate float64 // bytes/s
	last time.Time
}

const (
	// leastExposed is the KV that must have been under way after prefill for its
	// time to say something about the link: less is mostly waiting for the ends.
	leastExposed = 256 << 10
	// linkWeight is what a measurement changes of the rate.
	linkWeight = 0.3
	// linkLasts is how long a rate is believed. Routing keeps away from a slow
	// link, so that it would never learn of better days.
	linkLasts = time.Minute
)

// note books a hand-over. What prefill hides goes as fast as prefill, which says
// only that the link is no slower; the exposed rest goes as fast as the link.
func (l *links) note(worker string, t terse.Timing, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil {
		l.list = map[string]link{}
	}
	old, known := l.list[worker]
	known = known && now.Sub(old.last) < linkLasts
	switch {
	case t.KVExposed >= leastExposed && t.Transfer > 0:
		rate := float64(t.KVExposed) / t.Transfer.Seconds()
		if known {
			rate = old.rate + linkWeight*(rate-old.rate)
		}
		l.list[worker] = link{rate, now}
	case known && t.TransferTotal > 0 && t.KVBytes >= leastExposed:
		if least := float64(t.KVBytes) / t.TransferTotal.Seconds(); least > old.rate {
			l.list[worker] = link{least, now}
		}
	}
}

// rates are the links that were measured lately, of the latest that a record
// has room for.
func (l *links) rates(now time.Time) map[string]float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.list, func(_ string, k link) bool { return now.Sub(k.last) >= linkLasts })
	ids := slices.SortedFunc(maps.Keys(l.list), func(a, b string) int { return l.list[b].last.Compare(l.list[a].last) })
	rates := map[string]float64{}
	for _, id := range ids[:min(len(ids), cluster.MaxLinks)] {
		rates[id] = l.list[id].rate
	}
	return rates
}

// wireSize is what a prompt's KV is on the wire, as a line: its size at two
// lengths that have all that a long prompt has. Of a token's, some are second
// planes.
func wireSize(g *quant.Geometry) (fixed, perToken, second float64) {
	const short, long = 2048, 4096
	a, b := float64(transfer.HandoverBytes(g, short)), float64(transfer.HandoverBytes(g, long))
	perToken = (b - a) / (long - short)
	second = float64(transfer.SecondBytes(g, long)-transfer.SecondBytes(g, short)) / (long - short)
	return max(0, a-perToken*short), perToken, second
}
