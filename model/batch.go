package model

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// Pick is what a row's logits are wanted for: themselves, or a token. Runners that
// pick tokens do so as package sample.
type Pick struct {
	Token                   bool    // a token is enough, from a runner that picks it
	Temperature, TopP, MinP float32 // Temperature 0: the most likely one; TopP and MinP 0: all
	TopK                    int     // 0: all
	U                       float64 // the random number of [0, 1)
	// More says that one more token will be wanted after this one, likely at the next
	// step, and picked alike with the random number Next: a runner may begin with it.
	More bool
	Next float64
}

// Batch is the rows of one step: runs of tokens of one or more sequences. The
// zero value is empty, and Reset makes it so again.
type Batch struct {
	Tokens   []int32             // one per row
	Segments []attention.Segment // cover all rows in order
	Logits   []int               // the rows whose logits are wanted, ascending
	Picks    []Pick              // of each of Logits: what they are wanted for
	// AfterLayer, where set, is called once a layer's K and V of all rows are
	// in the pages and coded, before the layer attends: whoever streams them to
	// another machine need not wait for the rest of the step.
	AfterLayer func(layer int)
	// AfterAttend, where set, is called once a layer has attended: the important
	// tokens of prompts that end with the batch have got their second plane.
	AfterAttend func(layer int)
	// Interrupt, where set, tells the step who leaves while it runs.
	Interrupt *Interrupt

	from    []int  // of each of Segments, which Append it comes from
	givenUp []bool // by Append
}

// ErrAbandoned is the end of a step that was given up. What it has written to
// the pages of its rows is worth nothing.
var ErrAbandoned = errors.New("the step was abandoned")

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Segments) // lets go of the views
	b.Tokens, b.Segments, b.Logits, b.Picks = b.Tokens[:0], b.Segments[:0], b.Logits[:0], b.Picks[:0]
	b.from, b.givenUp = b.from[:0], b.givenUp[:0]
	b.AfterLayer, b.AfterAttend, b.Interrupt = nil, nil, nil
}

// Append adds rows: tokens of the sequence of view at positions pos, pos+1, ….
// The view must have exact pages for them.
func (b *Batch) Append(tokens []terse.Token, view *quant.View, pos int) {
	b.givenUp = append(b.givenUp, false)
	b.AppendMore(tokens, view, pos)
}

// AppendMore adds rows to what was appended last, which may lie elsewhere or read
// other planes of their pages.
func (b *Batch) AppendMore(tokens []terse.Token, view *quant.View, pos int) {
	b.from = append(b.from, len(b.givenUp)-1)
	b.Segments = append(b.Segments, attention.Segment{View: view, Row: len(b.Tokens), Rows: len(tokens), Pos: pos})
	for _, t := range tokens {
		b.Tokens = append(b.Tokens, int32(t))
	}
}

// WantAll asks for the logits of the last n rows.
func (b *Batch) WantAll(n int) {
	for row := len(b.Tokens) - n; row < len(b.Tokens); row++ {
		b.Logits, b.Picks = append(b.Logits, row), append(b.Picks, Pick{})
	}
}

// WantEvery asks for the logits of every n-th row and of the last.
func (b *Batch) WantEvery(n int) {
	for row := range b.Tokens {
		if row%n == n-1 || row == len(b.Tokens)-1 {
			b.Logits, b.Picks = append(b.Logits, row), append(b.Picks, Pick{})
		}
	}
}

// WantLast asks for the logits of the last row.
func (b *Batch) WantLast() { b.WantAll(1) }

// WantToken asks for the token after the last row: p says which.
func (b *Batch) WantToken(p Pick) {
	b.WantAll(1)
	p.Token = true
	b.Picks[len(b.Picks)-1] = p
}

// WantBest asks for the most likely token after the last row, of more to come.
func (b *Batch) WantBest() { b.WantToken(Pick{More: true}) }

// Rows is the number of rows.
func (b *Batch) Rows() int { return len(b.Tokens) }

// Check refuses what would index out of the weights or the buffers.
func (b *Batch) Check(c *Config) error {
	for row, t := range b.Tokens {
		if t < 0 || int(t) >= c.VocabSize {
			return fmt.Errorf("row %d: token %d is outside the vocabulary of %d", row, t, c.VocabSize)
		}
	}
	rows := 0
	for i, s := range b.Segments {
		if s.Row != rows || s.Rows < 0 || s.Pos < 0 || s.Pos > maxTokens {
			return fmt.Errorf("segment %d has %d rows from row %d at position %d; row %d is next", i, s.Rows, s.Row, s.Pos, rows)
		}
		rows += s.Rows
	}
	if rows != len(b.Tokens) {
		return fmt.Errorf("segments cover %d of %d rows", rows, len(b.Tokens))
	}
	last := -1
	for _, row := range b.Logits {
		if row <= last || row >= rows {
			return fmt.Errorf("logits of row %d of %d are wanted after row %d's; want ascending rows", row, rows, last)
		}
		last = row
	}
	return nil
}

// Stats says where a step's time went.
type Stats struct {
	Quantise time.Duration // writing K and V: basis, float16 pages, codes
	Attend   time.Duration // attending to them, 0 where the backend does not tell
}

// Scratch is the memory of a step's activations. It grows to the largest step
// and is used by one Forward at a time.
type Scratch struct {
	rows        int       // rows still computed: the batch's, then those wanted
	x, normed   []float32 // [rows][Hidden]
	q, attended []float32 // [rows][Heads][HeadDim]
	k, v        []float32 // [rows][KVHeads][HeadDim]
	gate, up    []float32 // [rows][Intermediate]
	logits      []float32 // [wanted][VocabSize]
	angles      kernels.Angles
	ps          []kernels.Projection
	segments    []attention.Segment // of the rows wanted
	narrowed    bool                // only those are left

	stop    *atomic.Bool // that the operations look at
	hurried kernels.Ops  // and the backend that does
}

// fit sizes the buffers for a batch and computes its positions' angles.
func (s *Scratch) fit(c *Config, b *Batch, f *frequencies) {
	s.setRows(c, len(b.Tokens))
	s.narrowed = false
	pairs := len(f.inverse)
	s.angles.Pairs, s.angles.Interleaved = pairs, c.Rotary.Interleaved
	for _, seg := range b.Segments {
		for i := range seg.Rows {
			at := (seg.Row + i) * pairs
			f.angles(s.angles.Cos[at:at+pairs], s.angles.Sin[at:at+pairs], seg.Pos+i)
		}
	}
}

// setRows sizes the activations for rows rows; what fits stays.
func (s *Scratch) setRows(c *Config, rows int) {
	s.rows = rows
	s.x, s.normed = resize(s.x, rows*c.Hidden), resize(s.normed, rows*c.Hidden)
	s.q, s.attended = resize(s.q, rows*c.Heads*c.HeadDim), resize(s.attended, rows*c.Heads*c.HeadDim)
	s.k, s.v = resize(s.k, rows*c.KVHeads*c.HeadDim), resize(s.v, rows*c.KVHeads*c.HeadDim)
	s.gate, s.up = resize(s.gate, rows*c.Intermediate), resize(s.up, rows*c.Intermediate)
	pairs := c.Rotary.Dim / 2
	s.angles.Cos, s.angles.Sin = resize(s.angles.Cos, rows*pairs), resize(s.angles.Sin, rows*pairs)
}

// narrow leaves only the rows whose logits are wanted, in the order in which
// they are: everything after the last layer's K and V is theirs alone.
func (s *Scratch) narrow(c *Config, b *Batch) {
	s.segments = s.segments[:0]
	pick(s.x, c.Hidden, b.Logits)
	pick(s.normed, c.Hidden, b.Logits)
	pick(s.angles.Cos, s.angles.Pairs, b.Logits)
	pick(s.angles.Sin, s.angles.Pairs, b.Logits)
	seg := 0
	for i, row := range b.Logits {
		for row >= b.Segments[seg].Row+b.Segments[seg].Rows {
			seg++
		}
		from := &b.Segments[seg]
		pos := from.Pos + row - from.Row
		if n := len(s.segments); i > 0 && row == b.Logits[i-1]+1 && s.segments[n-1].View == from.View {
			s.segments[n-1].Rows++
			continue
		}
		s.segments = append(s.segments, attention.Segment{View: from.View, Row: i, Rows: 1, Pos: pos})
	}
	s.setRows(c, len(b.Logits))
	s.narrowed = true
}

func resize(b []float32, n int) []float32 { return slices.Grow(b[:0], n)[:n] }
