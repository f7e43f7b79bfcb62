package transfer

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// unpacking is how a fetch decodes range-coded parts beside the connections' readers,
// so that decoding overlaps the transfer. A reader waits where all cores decode.
type unpacking struct {
	slots   chan struct{}
	scratch sync.Pool // *quant.PackScratch
}

func newUnpacking() *unpacking {
	return &unpacking{slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
		scratch: sync.Pool{New: func() any { return new(quant.PackScratch) }}}
}

// unpack lands the parts of a frame that are mine. The caller holds f.copying, which is
// let go of when that is done.
func (f *Fetch) unpack(l *link, view *quant.View, spans, mine []span, data []byte) {
	f.unpacking.slots <- struct{}{}
	data = bytes.Clone(data) // the link reads on
	f.client.running.Go(func() {
		defer f.copying.RUnlock()
		defer func() { <-f.unpacking.slots }()
		scratch := f.unpacking.scratch.Get().(*quant.PackScratch)
		defer f.unpacking.scratch.Put(scratch)
		var spent time.Duration
		err := f.landAll(view, spans, mine, data, func(page []byte, n int, data []byte) error {
			start := time.Now()
			defer func() { spent += time.Since(start) }()
			layer, i := f.plan.at(n)
			return f.plan.g.At(layer).Unpack(page, data, f.plan.parts[i].Hi, scratch)
		})
		f.mu.Lock()
		f.res.Unpack += spent
		f.mu.Unlock()
		if err != nil {
			f.unclaim(mine)
			l.fail(&terse.Error{Code: terse.CodeTransfer, Message: fmt.Sprintf("cannot take over KV: %v", err)})
		}
	})
}

// unclaim makes parts missing again that could not be landed.
func (f *Fetch) unclaim(spans []span) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range spans {
		for n := s.first; n < s.first+s.count; n++ {
			f.state[n] = partMissing
		}
	}
}
