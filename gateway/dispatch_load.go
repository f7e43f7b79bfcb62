package gateway

import (
	"sync"

	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/route"
)

// ledger is what this gateway has given each worker. Members report their load
// once a second; without the ledger all requests of a burst would go to the
// worker that was idle at its last record.
type ledger struct {
	mu       sync.Mutex
	accounts map[string]account // of workers with open entries only
}

type account struct {
	requests int // open
	tokens   int // of prompts whose first output has not come
}

// entry is one attempt's share of the ledger. Its methods are for one
// goroutine.
type entry struct {
	ledger   *ledger
	decode   string
	computes string // the worker that computes the prompt
	tokens   int    // still to compute
}

func (l *ledger) open(d route.Decision, tokens int) *entry {
	e := &entry{ledger: l, decode: d.Decode, computes: d.Decode, tokens: tokens}
	if d.Split {
		e.computes = d.Prefill
	}
	l.add(e.decode, 1, 0)
	l.add(e.computes, 0, tokens)
	return e
}

// computed takes the prompt off the books, the first time it is called.
func (e *entry) computed() {
	if e.tokens > 0 {
		e.ledger.add(e.computes, 0, -e.tokens)
		e.tokens = 0
	}
}

func (e *entry) close() {
	e.computed()
	e.ledger.add(e.decode, -1, 0)
}

func (l *ledger) add(id string, requests, tokens int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[id]
	a.requests += requests
	a.tokens += tokens
	if a == (account{}) {
		delete(l.accounts, id)
		return
	}
	l.accounts[id] = a
}

func (l *ledger) of(id string) account {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accounts[id]
}

// asCandidates takes the larger of a member's own figures and the ledger's:
// the member knows of other gateways, the ledger of the last second.
// chain is the prompt's, to be looked for in what the members hold.
func (c *Cluster) asCandidates(members []cluster.Member, chain []uint64) []route.Candidate {
	list := make([]route.Candidate, len(members))
	for i, m := range members {
		given := c.ledger.of(m.ID)
		list[i] = route.Candidate{
			ID:            m.ID,
			Role:          m.Role,
			Model:         m.Model,
			ModelHash:     m.ModelHash,
			Calibration:   m.Calibration,
			Format:        m.Format,
			MaxContext:    m.MaxContext,
			Running:       max(m.Running, given.requests-m.Waiting),
			Waiting:       m.Waiting,
			WaitingTokens: max(m.WaitingTokens, given.tokens),
			PrefillRate:   m.PrefillRate,
			CachedPrefix:  c.prefixes.held(m.ID, m.Epoch, chain),
			KVFixed:       m.KVFixed,
			KVPerToken:    m.KVPerToken,
			KVSecond:      m.KVSecond,
			Progressive:   route.Progressive(m.Progressive),
			Links:         m.Links,
		}
	}
	return list
}
