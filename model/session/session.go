package session

import (
	"errors"
	"fmt"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/internal/huge"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// Want says which rows' logits a Forward returns.
type Want int

// What a Forward can return.
const (
	NoLogits   Want = iota
	LastLogits      // of the last token
	SomeLogits      // of every 16th token and the last: samples of the last layer
	AllLogits       // of every token
)

// Session is one text in progress. It is not safe for concurrent use.
type Session struct {
	model   *model.Model
	tf      *quant.Transform
	runner  *attention.Runner
	view    *quant.View
	batch   model.Batch
	scratch model.Scratch
	stats   model.Stats
	pos     int
	limit   int
	top     []bool // see TopPlanes
	prompt  int
}

// New makes a session for at most maxTokens tokens. cal may be nil.
func New(m *model.Model, g *quant.Geometry, cal *quant.Calibration, maxTokens int) (*Session, error) {
	tf, err := quant.NewTransform(g, cal)
	if err != nil {
		return nil, err
	}
	return newSession(m, tf, maxTokens), nil
}

// Another makes a session of its own for another text, that Decode can step
// together with s.
func (s *Session) Another(maxTokens int) *Session {
	return newSession(s.model, s.tf, maxTokens)
}

// Fork makes a session of its own that has s's text so far and goes on to at most
// maxTokens tokens. What s had marked as prompt has to be marked again.
func (s *Session) Fork(maxTokens int) *Session {
	f := s.Another(maxTokens)
	f.pos, f.view.PromptLen = s.pos, s.view.PromptLen
	for page := range (s.pos + s.view.Geometry.Format.PageTokens - 1) / s.view.Geometry.Format.PageTokens {
		copy(f.view.Exact[page], s.view.Exact[page])
		copy(f.view.Coded[page], s.view.Coded[page])
	}
	return f
}

func newSession(m *model.Model, tf *quant.Transform, maxTokens int) *Session {
	g := tf.Geometry()
	s := &Session{model: m, tf: tf, limit: maxTokens, view: &quant.View{Geometry: g},
		runner: attention.New(m.Ops(), g, tf, m.Config.AttentionScale())}
	pages := (maxTokens + g.Format.PageTokens - 1) / g.Format.PageTokens
	s.view.Coded = make([][]byte, pages)
	if !g.Format.Coded() {
		s.view.Exact = huge.Split(pages, g.ExactPage())
		return s
	}
	for range pages { // most of them stay untouched if the text is repeated to its length
		s.view.Exact = append(s.view.Exact, make([]byte, g.ExactPage()))
	}
	lo, _ := g.Format.CodedPages(maxTokens)
	copy(s.view.Coded[min(lo, pages):], huge.Split(max(pages-lo, 0), g.CodedPage()))
	return s
}

// Forward appends tokens and returns the logits wanted, [rows][VocabSize], valid
// until the next call.
func (s *Session) Forward(tokens []terse.Token, want Want) ([]float32, error) {
	if s.pos+len(tokens) > s.limit {
		return nil, fmt.Errorf("cannot append %d tokens to %d: the session was made for %d", len(tokens), s.pos, s.limit)
	}
	s.read()
	s.batch.Reset()
	s.batch.Append(tokens, s.view, s.pos)
	switch want {
	case LastLogits:
		s.batch.WantLast()
	case SomeLogits:
		s.batch.WantEvery(16)
	case AllLogits:
		s.batch.WantAll(len(tokens))
	}
	s.pos += len(tokens)
	logits, stats, err := s.model.Forward(s.runner, &s.batch, &s.scratch)
	s.stats.Quantise += stats.Quantise
	s.stats.Attend += stats.Attend
	return logits, err
}

// Decode appends one token to each of several sessions, made by Another of one of
// them, in one step, as a server does, and returns the logits wanted, NoLogits or
// [len(sessions)][VocabSize], valid until the next call with the same first
// session. A session's logits do not depend on the others.
func Decode(sessions []*Session, tokens []terse.Token, want Want) ([]float32, error) {
	first := sessions[0]
	first.batch.Reset()
	for i, s := range sessions {
		if s.model != first.model || s.tf != first.tf {
			return nil, errors.New("cannot decode sessions in one step that are not of one model and format")
		}
		if s.pos+1 > s.limit {
			return nil, fmt.Errorf("cannot append a token to %d: the session was made for %d", s.pos, s.limit)
		}
		s.read()
		first.batch.Append(tokens[i:i+1], s.view, s.pos)
		if want != NoLogits {
			first.batch.WantLast()
		}
	}
	for _, s := range sessions {
		s.pos++
	}
	logits, stats, err := first.model.Forward(first.runner, &first.batch, &first.scratch)
	first.stats.Quantise += stats.Quantise
	first.stats.Attend += stats.Attend
	return logits, err
}

// read makes the next queries read the prompt's top planes if it is over.
func (s *Session) read() {
	if s.pos >= s.prompt {
		s.view.TopOnly = s.top
	}
}

// Prompt marks the first n positions as prompt, for formats whose prompt
// queries attend exactly. Without it every query attends as in decoding.
func (s *Session) Prompt(n int) { s.view.PromptLen = n }

// Watch shows f the attention jobs of every layer before they are computed.
func (s *Session) Watch(f func(jobs []kernels.AttnJob)) {
	s.runner = attention.New(watched{s.model.Ops(), f}, s.view.Geometry, s.tf, s.model.Config.AttentionScale())
}

// watched is a backend under observation.
type watched struct {
	kernels.Ops
	show func(jobs []kernels.AttnJob)
}

// Attend shows the jobs and does them.
func (w watched) Attend(jobs []kernels.AttnJob) {
	w.show(jobs)
	w.Ops.Attend(jobs)
}

// Select makes the first n positions a prompt at whose end formats that Select
// choose its important tokens; others do not mind. A Forward has to end there.
func (s *Session) Select(n int) {
	if s.view.Geometry.Format.Selects() {
		s.Prompt(n)
	}
}

// TopPlanes makes the first n positions a prompt whose codes all later queries read
// by their top planes, as where it was handed over and the second ones do not come.
// A Forward has to end there.
func (s *Session) TopPlanes(n int) {
	s.prompt = n
	s.top = make([]bool, len(s.view.Coded))
	for _, part := range s.view.Geometry.Format.Handover(n) {
		s.top[part.Page] = s.top[part.Page] || part.Coded
	}
}

// View is the session's cache.
func (s *Session) View() *quant.View { return s.view }

// Stats says where the time of all steps so far went.
func (s *Session) Stats() model.Stats { return s.stats }

// Len is the number of tokens so far.
func (s *Session) Len() int { return s.pos }

// Repeat lengthens the text to n tokens by repeating its whole pages beyond the
// first, without computing anything: what a benchmark of long texts wants, whose
// time does not depend on what they say. The text must have two whole pages, and
// n be a whole number of them. Only forms of pages that the next query reads are
// written.
func (s *Session) Repeat(n int) error {
	f := s.view.Geometry.Format
	whole := s.pos / f.PageTokens
	if whole < 2 || n%f.PageTokens != 0 || n < s.pos || n > s.limit {
		return fmt.Errorf("cannot repeat %d tokens to %d of at most %d: pages are of %d tokens", s.pos, n, s.limit, f.PageTokens)
	}
	exactLo, _ := f.ExactPages(n, 0)
	codedLo, codedHi := f.CodedPages(n)
	for page := whole; page*f.PageTokens < n; page++ {
		from := 1 + (page-1)%(whole-1)
		if page >= exactLo {
			copy(s.view.Exact[page], s.view.Exact[from])
		}
		if page >= codedLo && page < codedHi {
			copy(s.view.Coded[page], s.view.Coded[from])
		}
	}
	s.pos = n
	return nil
}
