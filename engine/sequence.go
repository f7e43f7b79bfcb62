package engine

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/engine/sample"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/sched"
)

// sequence is one request inside the engine. Only Run's goroutine touches it.
type sequence struct {
	id      sched.ID
	req     *terse.Request
	mode    sched.Mode
	sampler *sample.Sampler
	out     *queue

	view     *quant.View        // of the last plan
	planes   Planes             // ModeRemote: still to come
	record   *terse.PlaneRecord // what rows that are computed here read, nil for all planes
	tell     bool               // the next output is to carry the timing, for the record has grown
	sink     Sink               // ModePrefill
	staged   int                // tokens that the sink's last view had on the host
	reserved chan reservation   // ModeRemote: receives one

	reception model.Reception // ModeRemote: until all of it has come

	slab      []terse.Token // memory of the outputs' tokens
	computed  int           // prompt tokens, reused ones included
	generated int           // tokens picked, here or by the prefill worker
	reason    terse.FinishReason
	over      bool          // finish was called
	left      atomic.Bool   // its caller has gone; set from outside the loop
	gone      chan struct{} // closed when the loop has let go of it
	lendings  []*lending    // that wait for more of it to be computed
	cached    int

	timing              terse.Timing
	arrived             time.Time
	admitted            time.Time // first admission
	firstToken, lastOne time.Time
}

// reservation is pages for a prompt's KV. Those of the first held tokens have it.
type reservation struct {
	view *quant.View
	held int
}

func (e *Engine) newSequence(req *terse.Request, mode sched.Mode) *sequence {
	given := len(req.Prompt) - min(max(req.Resumed, 0), len(req.Prompt)) // checked with the rest, by the scheduler
	s := &sequence{
		id: sched.ID(req.ID), req: req, mode: mode, out: newQueue(e.closed), arrived: time.Now(),
		sampler: sample.New(req.Sampling, req.Prompt[:given]), generated: len(req.Prompt) - given,
		reserved: make(chan reservation, 1), gone: make(chan struct{}),
	}
	for _, t := range req.Prompt[given:] {
		s.sampler.Observe(t)
	}
	if g := e.cfg.Runner.Geometry(); req.Planes != nil && mode == sched.ModeLocal && g.HasSecond() && !g.Format.Selects() {
		ends := math.MaxInt // all of the record is known
		if req.Resumed > 0 {
			ends = len(req.Prompt) - 1
		}
		s.follow(*req.Planes, ends, g.Format.PageTokens)
	}
	return s
}

// nextView is where the next plan's pages go. A sink may still be sending from
// the last view's pages on another goroutine, so its sequences get a new one.
func (s *sequence) nextView() *quant.View {
	switch {
	case s.view == nil:
		s.view = &quant.View{}
	case s.sink != nil:
		s.view = &quant.View{Weights: s.view.Weights}
	}
	return s.view
}

func (s *sequence) admit(now time.Time, a sched.Admission) {
	if s.admitted.IsZero() {
		s.admitted = now
		if s.mode == sched.ModeRemote { // recomputed here after it lost its pages
			s.timing.Queue += a.Waited
		} else { // the step that was running when it came included
			s.timing.Queue = now.Sub(s.arrived)
		}
		s.cached = a.CachedTokens
		s.timing.Recovered = a.Replicated
	}
}

// pick is what the next row's logits are wanted for: a token is enough where nothing
// else is done with them than to take the largest or to draw.
func (s *sequence) pick() model.Pick {
	more := s.mode != sched.ModePrefill && s.generated+1 < s.req.MaxTokens
	if s.sampler.Greedy() {
		return model.Pick{Token: true, More: more}
	}
	d, enough := s.sampler.Drawing(s.generated)
	next, _ := s.sampler.Drawing(s.generated + 1)
	return model.Pick{Token: enough, Temperature: d.Temperature, TopP: d.TopP, MinP: d.MinP, TopK: d.TopK, U: d.U, More: more, Next: next.U}
}

// emitToken queues a picked token and reports whether it was the last.
func (s *sequence) emitToken(token terse.Token, score terse.Scored) bool {
	now := time.Now()
	// Outputs belong to the consumer, so that each has a token of its own; memory
	// for them comes by the hundred.
	if len(s.slab) == cap(s.slab) {
		s.slab = make([]terse.Token, 0, 256)
	}
	s.slab = append(s.slab, token)
	n := len(s.slab)
	out := terse.Output{Tokens: s.slab[n-1 : n : n]}
	if s.firstToken.IsZero() {
		s.firstToken = now
		s.timing.TTFT = now.Sub(s.arrived)
		if s.mode != sched.ModeRemote { // else measured where it was computed
			s.timing.Prefill = now.Sub(s.admitted) - s.timing.Quantise
		}
		// The first output carries what is known: a client that leaves before the
		// last one (a stop string, found in text) still learns what it cost, and where
		// the rest has to come from another worker, that one is told what was reused.
		timing := s.timing
		out.Timing, out.Usage = &timing, s.usage()
		out.Usage.CompletionTokens++
	}
	if s.tell { // whoever goes on for this worker needs the record
		timing := s.timing
		out.Timing, s.tell = &timing, false
	}
	s.lastOne = now
	s.generated++
	if s.req.Sampling.Logprobs >= 0 {
		score.Top = slices.Clone(score.Top)
		out.Scores = []terse.Scored{score}
	}
	s.out.put(out)
	return s.ends(token)
}

// ends reports whether token ends the generation here, and notes why.
func (s *sequence) ends(token terse.Token) bool {
	switch {
	case slices.Contains(s.req.StopTokens, token):
		s.reason = terse.FinishStop
	case s.generated >= s.req.MaxTokens:
		s.reason = terse.FinishLength
	default:
		return s.mode == sched.ModePrefill // its decoder goes on
	}
	return true
}

// scorePrompt queues the log-probabilities of the prompt tokens that the rows of
// w predict.
func (s *sequence) scorePrompt(w sched.Work, logits []float32, vocab int) {
	var scores []terse.Scored
	for r := range w.Tokens {
		next := w.From + r + 1
		if next >= w.PromptLen {
			break
		}
		scores = append(scores, sample.Score(logits[r*vocab:(r+1)*vocab], s.req.Prompt[next], s.req.Sampling.PromptLogprobs))
	}
	if len(scores) > 0 {
		s.out.put(terse.Output{Prompt: scores})
	}
}

// finish queues the last output, once.
func (s *sequence) finish(reason terse.FinishReason, err *terse.Error) {
	if s.over {
		return
	}
	s.over = true
	if reason == "" {
		reason = terse.FinishLength // a prompt that was only scored
	}
	if !s.firstToken.IsZero() {
		s.timing.Decode = s.lastOne.Sub(s.firstToken)
	}
	s.countPlanes()
	timing := s.timing
	s.out.put(terse.Output{
		Finish: reason, Err: err, Timing: &timing,
		Usage: s.usage(),
	})
}

// usage counts what a lost worker generated as this one's.
func (s *sequence) usage() *terse.Usage {
	return &terse.Usage{PromptTokens: len(s.req.Prompt) - s.req.Resumed, CompletionTokens: s.generated, CachedTokens: s.cached}
}
