package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/route"
)

// delivery is what the client has got of an answer, whichever workers made it.
// What one worker leaves unfinished, the next is asked to go on with.
type delivery struct {
	req    *terse.Request
	emit   func(terse.Output) error
	tokens []terse.Token
	scores int // of the prompt
	first  time.Time
	timing terse.Timing      // as the worker told that made the first token
	cached int               // likewise
	resent int               // tokens that another worker had to go on from
	planes terse.PlaneRecord // what the tokens were computed on
}

// rest is the request as the next worker is to get it: from its beginning, or
// from behind the tokens that the client has.
func (a *delivery) rest() *terse.Request {
	if len(a.tokens) == 0 {
		return a.req
	}
	next := *a.req
	next.Prompt = slices.Concat(a.req.Prompt, a.tokens)
	next.Resumed, next.Reused = len(a.tokens), a.cached
	if len(a.planes.Awaited) > 0 {
		record := a.planes
		next.Planes = &record
	}
	next.Sampling.PromptLogprobs = -1 // the client has them: they come before the first token
	return &next
}

// ended reports whether the client has every token, so that nothing but the
// last output is missing.
func (a *delivery) ended() (terse.FinishReason, bool) {
	n := len(a.tokens)
	switch {
	case n == 0:
		return "", false
	case slices.Contains(a.req.StopTokens, a.tokens[n-1]):
		return terse.FinishStop, true
	case n >= a.req.MaxTokens:
		return terse.FinishLength, true
	}
	return "", false
}

// take hands an output on. What the client has already is left out.
func (a *delivery) take(out terse.Output) error {
	if out.Timing != nil {
		a.planes = out.Timing.PlaneRecord
	}
	if a.resent > 0 {
		out = a.merge(out)
	}
	if len(out.Tokens) > 0 && a.first.IsZero() {
		a.first = time.Now()
		if out.Timing != nil {
			a.timing = *out.Timing
		}
		if out.Usage != nil {
			a.cached = out.Usage.CachedTokens
		}
	}
	a.tokens = append(a.tokens, out.Tokens...)
	a.scores += len(out.Prompt)
	return a.emit(out)
}

// merge makes an output of a later worker one of the whole answer.
func (a *delivery) merge(out terse.Output) terse.Output {
	if out.Timing != nil {
		later := *out.Timing
		t := a.timing
		t.DecodeWorker, t.Retries, t.Route = later.DecodeWorker, later.Retries, later.Route
		t.PlaneRecord, t.TopTokens, t.Adoption = later.PlaneRecord, later.TopTokens, 0
		t.Replayed, t.Recovered, t.Expected, t.Decode = a.resent, later.Recovered, 0, time.Since(a.first)
		out.Timing = &t
	}
	if out.Usage != nil {
		usage := *out.Usage
		usage.CachedTokens = a.cached
		out.Usage = &usage
	}
	return out
}

// conclude is the last output of an answer whose worker was lost just before it.
func (a *delivery) conclude(finish terse.FinishReason) error {
	t := a.timing
	t.Decode, t.PlaneRecord = time.Since(a.first), a.planes
	return a.emit(terse.Output{
		Finish: finish, Timing: &t,
		Usage: &terse.Usage{PromptTokens: len(a.req.Prompt), CompletionTokens: len(a.tokens), CachedTokens: a.cached},
	})
}

// try is one attempt of a request.
type try struct {
	cluster  *Cluster
	answer   *delivery
	req      *terse.Request // what is left of it
	chain    []uint64       // of its prompt
	members  []cluster.Member
	decision route.Decision
	attempt  int
	moved    bool // the client has got something of this attempt
}

func (t *try) run(ctx context.Context, job cluster.Job) error {
	entry := t.cluster.ledger.open(t.decision, len(t.req.Prompt))
	defer entry.close()
	skip := t.answer.scores
	thought := t.cluster.prefixes.held(t.decision.Decode, t.epochOf(t.decision.Decode), t.chain)
	return t.cluster.jobs.Submit(ctx, t.decision.Decode, job, func(out terse.Output) error {
		if len(out.Tokens) > 0 && !t.moved {
			t.learn(t.chain)
		}
		entry.computed()
		if n := min(skip, len(out.Prompt)); n > 0 { // scores that the client has of a lost worker
			out.Prompt, skip = out.Prompt[n:], skip-n
		}
		t.moved = t.moved || len(out.Tokens)+len(out.Prompt) > 0
		out = t.complete(out)
		err := t.answer.take(out)
		if out.Finish != "" {
			t.finished(out, thought)
		}
		return err
	})
}

func (t *try) epochOf(id string) uint64 {
	i := slices.IndexFunc(t.members, func(m cluster.Member) bool { return m.ID == id })
	return t.members[i].Epoch
}

// learn notes who holds the pages of a text now.
func (t *try) learn(chain []uint64) {
	t.cluster.prefixes.note(t.decision.Decode, t.epochOf(t.decision.Decode), chain)
	if t.decision.Split {
		t.cluster.prefixes.note(t.decision.Prefill, t.epochOf(t.decision.Prefill), chain)
	}
}

// finished learns from a whole answer: how long answers are, that its decode
// worker holds it, and whether that held what it was thought to.
func (t *try) finished(out terse.Output, thought int) {
	c := t.cluster
	if n := len(t.answer.tokens); n > 0 {
		c.outputs.add(float64(n))
	}
	worker := t.decision.Decode
	if !t.decision.Split && out.Usage != nil && out.Usage.CachedTokens+2*prefixPage < thought {
		c.prefixes.forget(worker) // one page and the next are not always reused
	}
	c.prefixes.note(worker, t.epochOf(worker), c.prefixes.chain(slices.Concat(t.answer.req.Prompt, t.answer.tokens)))
}

// complete adds to an output's timing what only the dispatcher knows.
func (t *try) complete(out terse.Output) terse.Output {
	if out.Timing == nil {
		return out
	}
	timing := *out.Timing
	timing.Retries += t.attempt
	if timing.Retries == 0 { // else the estimate was of what did not work
		timing.Expected = t.decision.First
	}
	if timing.Route == "" {
		timing.Route = t.decision.Reason
	}
	if timing.DecodeWorker == "" {
		timing.DecodeWorker = t.decision.Decode
	}
	if timing.PrefillWorker == "" {
		timing.PrefillWorker = t.decision.Prefill
	}
	out.Timing = &timing
	return out
}

// culprit is the worker to leave out of the next attempt. A split request that
// failed by its prefill worker, which the error then names, or between the
// two, can still run on the decode worker; once there are tokens, the prefill
// worker has done its part.
func (t *try) culprit(err error) string {
	if t.decision.Split && !t.moved && (terse.CodeOf(err) == terse.CodeTransfer || names(err, t.decision.Prefill)) {
		return t.decision.Prefill
	}
	return t.decision.Decode
}

// names reports whether an error speaks of a worker: its ID between characters
// that no ID has.
func names(err error, id string) bool {
	inID := func(r rune) bool {
		return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	words := strings.FieldsFunc(err.Error(), func(r rune) bool { return !inID(r) })
	return slices.Contains(words, id)
}
