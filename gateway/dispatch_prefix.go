package gateway

import (
	"encoding/binary"
	"hash/maphash"
	"sync"

	"github.com/terse-llm/terse"
)

// prefixPage is the unit in which prefixes are remembered, in tokens: a page of
// the KV cache in most formats, half of one in the others.
const prefixPage = 64

// prefixes remembers which prompts and answers went through which worker, so
// that the next turn of a conversation is routed to where its KV is. Workers
// do not say what they evict: what is remembered is bounded, and forgotten when
// a worker turns out not to hold it. A wrong guess costs time, never a wrong answer.
type prefixes struct {
	seed maphash.Seed
	mu   sync.Mutex
	of   map[string]*holding // by worker
}

// holding is the pages that a worker is thought to hold, by the hash of all
// tokens up to their end. What was not asked for in the last maxHeld is dropped.
type holding struct {
	epoch      uint64
	now, older map[uint64]struct{}
}

// Bounds of what is remembered: pages of one worker, twice over, and workers.
const (
	maxHeld    = 1 << 15
	maxHolders = 1024
)

func newPrefixes() prefixes {
	return prefixes{seed: maphash.MakeSeed(), of: map[string]*holding{}}
}

// chain has the hash of each full page of tokens together with all before it.
func (p *prefixes) chain(tokens []terse.Token) []uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	chain := make([]uint64, 0, len(tokens)/prefixPage)
	var word [4]byte
	for i, t := range tokens {
		binary.LittleEndian.PutUint32(word[:], uint32(t))
		h.Write(word[:]) // never fails
		if (i+1)%prefixPage == 0 {
			chain = append(chain, h.Sum64())
		}
	}
	return chain
}

// holder is a worker's pages in this life of it; nil where nothing is known.
func (p *prefixes) holder(worker string, epoch uint64) *holding {
	if h := p.of[worker]; h != nil && h.epoch == epoch {
		return h
	}
	return nil
}

// held is how many leading tokens of a prompt a worker is thought to hold.
func (p *prefixes) held(worker string, epoch uint64, chain []uint64) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.holder(worker, epoch)
	if h == nil {
		return 0
	}
	n := 0
	for n < len(chain) && h.has(chain[n]) {
		n++
	}
	return n * prefixPage
}

func (h *holding) has(page uint64) bool {
	_, now := h.now[page]
	_, older := h.older[page]
	return now || older
}

// note says that a worker holds the pages of a chain.
func (p *prefixes) note(worker string, epoch uint64, chain []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.holder(worker, epoch)
	if h == nil {
		if len(p.of) >= maxHolders {
			clear(p.of)
		}
		h = &holding{epoch: epoch, now: map[uint64]struct{}{}}
		p.of[worker] = h
	}
	for _, page := range chain {
		if len(h.now) >= maxHeld {
			h.now, h.older = map[uint64]struct{}{}, h.now
		}
		h.now[page] = struct{}{}
	}
}

// forget is for a worker that did not hold what it was thought to.
func (p *prefixes) forget(worker string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, worker)
}

// mean is an exponentially weighted mean.
type mean struct {
	mu  sync.Mutex
	sum float64
	n   float64
}

// meanDecay is what one observation leaves of the past: about the last fifty count.
const meanDecay = 0.98

func (m *mean) add(v float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sum, m.n = m.sum*meanDecay+v, m.n*meanDecay+1
}

// value is 0 before the first observation.
func (m *mean) value() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n == 0 {
		return 0
	}
	return m.sum / m.n
}
