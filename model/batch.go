package model

import (
	"fmt"
	"slices"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/quant"
)

// Batch is the rows of one step: runs of tokens of one or more sequences. The
// zero value is empty, and Reset makes it so again.
type Batch struct {
	Tokens   []int32             // one per row
	Segments []attention.Segment // cover all rows in order
	Logits   []int               // the rows whose logits are wanted
	// AfterLayer, where set, is called once a layer's K and V of all rows are
	// in the pages and coded, before the layer attends: whoever streams them to
	// another machine need not wait for the rest of the step.
	AfterLayer func(layer int)
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.Segments) // lets go of the views
	b.Tokens, b.Segments, b.Logits, b.AfterLayer = b.Tokens[:0], b.Segments[:0], b.Logits[:0], nil
}

// Append adds rows: tokens of the sequence of view at positions pos, pos+1, ….
// The view must have exact pages for them.
func (b *Batch) Append(tokens []terse.Token, view *quant.View, pos int) {
	b.Segments = append(b.Segments, attention.Segment{View: view, Row: len(b.Tokens), Rows: len(tokens), Pos: pos})
	for _, t := range tokens {
		b.Tokens = append(b.Tokens, int32(t))
	}
}

// WantAll asks for the logits of the last n rows.
func (b *Batch) WantAll(n int) {
	for row := len(b.Tokens) - n; row < len(b.Tokens); row++ {
		b.Logits = append(b.Logits, row)
	}
}

// WantLast asks for the logits of the last row.
func (b *Batch) WantLast() { b.WantAll(1) }

// Rows is the number of rows.
func (b *Batch) Rows() int { return len(b.Tokens) }

// check refuses what would index out of the weights or the buffers.
func (b *Batch) check(c *Config) error {
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
	for _, row := range b.Logits {
		if row < 0 || row >= rows {
			return fmt.Errorf("logits of row %d of %d are wanted", row, rows)
		}
	}
	return nil
}

// Stats says where a step's time went.
type Stats struct {
	Quantise time.Duration // writing K and V: basis, float16 pages, codes
}

// Scratch is the memory of a step's activations. It grows to the largest step
// and is used by one Forward at a time.
type Scratch struct {
	pos            []int
	x, normed      []float32 // [rows][Hidden]
	q, attended    []float32 // [rows][Heads][HeadDim]
	k, v           []float32 // [rows][KVHeads][HeadDim]
	gate, up       []float32 // [rows][Intermediate]
	picked, logits []float32 // [wanted][Hidden], [wanted][VocabSize]
}

// fit sizes the buffers for a batch and lays out its positions.
func (s *Scratch) fit(c *Config, b *Batch) {
	rows, wanted := len(b.Tokens), len(b.Logits)
	for _, f := range []struct {
		buf *[]float32
		n   int
	}{
		{&s.x, rows * c.Hidden}, {&s.normed, rows * c.Hidden},
		{&s.q, rows * c.Heads * c.HeadDim}, {&s.attended, rows * c.Heads * c.HeadDim},
		{&s.k, rows * c.KVHeads * c.HeadDim}, {&s.v, rows * c.KVHeads * c.HeadDim},
		{&s.gate, rows * c.Intermediate}, {&s.up, rows * c.Intermediate},
		{&s.picked, wanted * c.Hidden}, {&s.logits, wanted * c.VocabSize},
	} {
		*f.buf = slices.Grow((*f.buf)[:0], f.n)[:f.n]
	}
	s.pos = s.pos[:0]
	for _, seg := range b.Segments {
		for i := range seg.Rows {
			s.pos = append(s.pos, seg.Pos+i)
		}
	}
}
