package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/terse-llm/terse"
)

// exchange is one generation request and its answer, from arrival to log line.
type exchange struct {
	id       string
	endpoint string
	model    string // as the request named it
	since    time.Time
	params   genParams
	tasks    []*choiceTask // prompt by prompt, n choices each
	shape    shape

	results []choiceResult
	report  timingReport
	status  int
	err     error
}

// shape is what differs between the answers of the two endpoints.
type shape interface {
	// answer is the body of a plain answer.
	answer(x *exchange, choices []choiceText) any
	// opening is the first chunk of a streamed choice; nil for none.
	opening(x *exchange, choice int) any
	// step is a chunk of a streamed choice; closing is its last.
	step(x *exchange, choice int, d delta) any
	closing(x *exchange, choice int, finish terse.FinishReason) any
	// total is the chunk with the usage and the timing.
	total(x *exchange, usage usageObject, report timingReport) any
}

func (s *Server) newExchange(endpoint, prefix string) *exchange {
	return &exchange{id: s.newID(prefix), endpoint: endpoint, model: s.opts.Models[0], since: s.now(), status: http.StatusOK}
}

// randomID is prefix and 24 hexadecimal digits.
func randomID(prefix string) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + "-" + hex.EncodeToString(b[:])
}

// run generates all choices.
func (x *exchange) run(ctx context.Context, s *Server, to sink) error {
	results, err := s.generateAll(ctx, x.tasks, x.since, to)
	x.results = results
	x.report = newTimingReport(results, s.now().Sub(x.since))
	return err
}

// close writes the request's log line.
func (x *exchange) close(s *Server) {
	if x.err != nil {
		x.status = toAPIError(x.err).Status
	}
	if x.report.JCT == 0 {
		x.report.JCT = millis(s.now().Sub(x.since))
	}
	s.logRequest(x)
}

// usage adds the choices up. A prompt counts once, whatever n; of its tokens
// those are cached that no choice had to compute.
func (x *exchange) usage() terse.Usage {
	var total terse.Usage
	for i := 0; i < len(x.results); i += x.params.n {
		choices := x.results[i:min(i+x.params.n, len(x.results))]
		cached := choices[0].usage.CachedTokens
		for _, r := range choices {
			cached = min(cached, r.usage.CachedTokens)
			total.CompletionTokens += r.usage.CompletionTokens
		}
		total.PromptTokens += choices[0].usage.PromptTokens
		total.CachedTokens += cached
	}
	return total
}

// finish is the reason the log gives: that of the choices if they agree.
func (x *exchange) finish() string {
	if x.err != nil {
		return finishedReason("", x.err)
	}
	reason := ""
	for _, r := range x.results {
		switch f := string(r.finish); reason {
		case "", f:
			reason = f
		default:
			return "mixed"
		}
	}
	return reason
}

// choiceText is a whole choice.
type choiceText struct {
	text   string
	scores []scoredToken
	finish terse.FinishReason
}

// collector is the sink of a plain answer. Choices write to their own element
// only.
type collector struct{ choices []choiceCollector }

type choiceCollector struct {
	text   []byte
	scores []scoredToken
	finish terse.FinishReason
}

func newCollector(n int) *collector { return &collector{make([]choiceCollector, n)} }

func (c *collector) delta(i int, d delta) error {
	choice := &c.choices[i]
	choice.text = append(choice.text, d.text...)
	choice.scores = append(choice.scores, d.scores...)
	return nil
}

func (c *collector) finish(i int, r choiceResult) error {
	c.choices[i].finish = r.finish
	return nil
}

func (c *collector) texts() []choiceText {
	out := make([]choiceText, len(c.choices))
	for i, choice := range c.choices {
		out[i] = choiceText{string(choice.text), choice.scores, choice.finish}
	}
	return out
}
