package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

// Model is what a gateway makes tokens for and text of. Workers know tokens
// only: one with another model, or the same weights with another vocabulary,
// would answer something else than it was asked, and nobody could tell.
type Model struct {
	Name string // for messages
	Hash string // see cluster.Member.ModelHash; empty = not compared
	Text string // see cluster.Member.Text; empty = not compared
}

// differs says what keeps this gateway from using a worker, "" for nothing.
func (g Model) differs(m cluster.Member) string {
	const advice = "start the gateway and all workers with the same --model, or give one of them another --cluster"
	switch {
	case g.Hash != "" && g.Hash != m.ModelHash:
		return fmt.Sprintf("worker %q serves model %s (%.12s), this gateway is for %s (%.12s): %s", m.ID, m.Model, m.ModelHash, g.Name, g.Hash, advice)
	case g.Text != "" && m.Text != "" && g.Text != m.Text:
		return fmt.Sprintf("worker %q has model %s with another tokenizer or chat template (%.12s) than this gateway's model %s (%.12s): %s",
			m.ID, m.Model, m.Text, g.Name, g.Text, advice)
	}
	return ""
}

// strangers remembers which workers were said not to fit, so that each is said
// once in its life.
type strangers struct {
	mu   sync.Mutex
	said map[string]uint64 // epoch by ID
}

// first reports whether a member was not said to differ before.
func (s *strangers) first(m cluster.Member) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch, ok := s.said[m.ID]; ok && epoch == m.Epoch {
		return false
	}
	if s.said == nil || len(s.said) >= maxStrangers {
		s.said = map[string]uint64{}
	}
	s.said[m.ID] = m.Epoch
	return true
}

// maxStrangers bounds what is remembered of workers that do not fit.
const maxStrangers = 4096

// fitting are the members that this gateway may use. Where there are only
// others, the error says in what the first differs.
func (c *Cluster) fitting() ([]cluster.Member, error) {
	all, why := c.members.Members(), ""
	fit := slices.DeleteFunc(slices.Clone(all), func(m cluster.Member) bool {
		d := c.opts.Model.differs(m)
		if d != "" && c.strange.first(m) {
			c.log.Error("a worker is not used", "id", m.ID, "why", d)
		}
		if why == "" {
			why = d
		}
		return d != ""
	})
	if len(fit) == 0 && why != "" {
		return nil, &terse.Error{Code: terse.CodeMismatch, Message: "cannot use the cluster: " + why}
	}
	return fit, nil
}

// settleTime is how long Settle listens: those that are there answer within a
// round trip.
const settleTime = 200 * time.Millisecond

// Settle waits until the workers that are there have told about themselves, and
// refuses the cluster where one of them has another model: a gateway that was
// started with the wrong one is to end, not to serve what is left. Workers that
// join later and do not fit are left alone and logged.
func (c *Cluster) Settle(ctx context.Context) error {
	settle, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	<-settle.Done()
	for _, m := range c.members.Members() {
		if d := c.opts.Model.differs(m); d != "" {
			return &terse.Error{Code: terse.CodeMismatch, Message: "cannot serve this cluster: " + d}
		}
	}
	return ctx.Err()
}
