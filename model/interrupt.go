package model

import (
	"sync/atomic"

	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/kernels"
)

// Interrupt tells a step that runs who has left: a long prompt must not hold its
// pages, nor others up, for the rest of a step that nobody waits for.
//
// A runner looks as often as it can: the one for processors between operations,
// which end early for it; the one for GPUs before the step begins only.
type Interrupt struct {
	// Raised says that there is something to look at. Whoever leaves sets it last.
	Raised atomic.Bool
	// Left reports whether nobody waits any more for the rows of the n-th Append.
	Left func(n int) bool
	// Looked is called by the step, in its goroutine, when it has looked: nothing
	// that is GivenUp is read or written from then on.
	Looked func()
}

// GivenUp reports whether the rows of the n-th Append are not computed any more.
func (b *Batch) GivenUp(n int) bool { return b.givenUp[n] }

// Abandoned reports whether nobody waits for any row.
func (b *Batch) Abandoned() bool {
	if b.Interrupt == nil {
		return false
	}
	for _, n := range b.from {
		if !b.Interrupt.Left(n) {
			return false
		}
	}
	return true
}

func (b *Batch) raised() bool { return b.Interrupt != nil && b.Interrupt.Raised.Load() }

// heed looks who has left, and takes their rows out. It reports false where no
// other rows are there. What an operation that was interrupted has written is
// worth nothing; its inputs are as they were.
func (s *Scratch) heed(c *Config, b *Batch) bool {
	b.Interrupt.Raised.Store(false) // before looking: whoever leaves from now on raises it again
	var gone []int
	stay := false
	for i, n := range b.from {
		switch {
		case i > 0 && n == b.from[i-1]: // asked once: all of its rows go, or none
		case b.Interrupt.Left(n):
			gone = append(gone, n)
		default:
			stay = true
		}
	}
	if !stay || !s.narrowed { // else few rows are left of the last layer
		for _, n := range gone {
			b.givenUp[n] = true
		}
	}
	if stay && !s.narrowed && len(gone) > 0 {
		s.shed(c, b)
	}
	b.Interrupt.Looked()
	return stay
}

// shed leaves only the rows of segments that are not given up, in all buffers.
func (s *Scratch) shed(c *Config, b *Batch) {
	var rows, names []int // that stay, and of the batch's rows their new places
	segments, from := b.Segments[:0], b.from[:0]
	for i, seg := range b.Segments {
		stays := !b.givenUp[b.from[i]]
		for r := range seg.Rows {
			names = append(names, -1)
			if stays {
				names[len(names)-1] = len(rows)
				rows = append(rows, seg.Row+r)
			}
		}
		if stays {
			seg.Row = len(rows) - seg.Rows
			segments, from = append(segments, seg), append(from, b.from[i])
		}
	}
	clear(b.Segments[len(segments):])
	b.Segments, b.from = segments, from
	wanted := 0
	for i, row := range b.Logits {
		if names[row] >= 0 {
			b.Logits[wanted], b.Picks[wanted] = names[row], b.Picks[i]
			wanted++
		}
	}
	b.Logits, b.Picks = b.Logits[:wanted], b.Picks[:wanted]
	for i, row := range rows {
		b.Tokens[i] = b.Tokens[row]
	}
	b.Tokens = b.Tokens[:len(rows)]
	for _, x := range [...][]float32{s.x, s.normed, s.q, s.attended, s.k, s.v, s.gate, s.up, s.angles.Cos, s.angles.Sin} {
		pick(x, len(x)/s.rows, rows)
	}
	s.setRows(c, len(rows))
}

// pick moves rows of a width, given in rising order, to the front.
func pick(x []float32, width int, rows []int) {
	for i, row := range rows {
		copy(x[i*width:(i+1)*width], x[row*width:(row+1)*width])
	}
}

// linear computes s.ps from the rows of x; false where nobody waits any more.
func (m *Model) linear(b *Batch, s *Scratch, x []float32) bool {
	for {
		ops := s.until(m, b)
		if ops == nil {
			ops = m.ops
		}
		ops.Linear(x, s.rows, s.ps)
		if !b.raised() {
			return true
		}
		if !s.heed(&m.Config, b) {
			return false
		}
	}
}

// attention is what the rows of a layer attend to, from s.q to s.attended; false
// where nobody waits any more.
func (m *Model) attention(att *attention.Runner, b *Batch, s *Scratch, layer int) bool {
	segments := func() []attention.Segment {
		if s.narrowed {
			return s.segments
		}
		return b.Segments
	}
	att.Queries(layer, segments(), s.q)
	for {
		att.Attend(s.until(m, b), layer, segments(), s.q)
		if !b.raised() {
			att.Outputs(layer, segments(), s.attended)
			return true
		}
		if !s.heed(&m.Config, b) {
			return false
		}
	}
}

// until is the backend for operations that an interrupt ends, nil without one.
func (s *Scratch) until(m *Model, b *Batch) kernels.Ops {
	if b.Interrupt == nil {
		return nil
	}
	if stop := &b.Interrupt.Raised; s.stop != stop {
		s.stop, s.hurried = stop, m.ops.Until(stop)
	}
	return s.hurried
}
