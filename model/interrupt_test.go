package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels"
)

// interrupter is a backend in whose at-th long operation somebody leaves. What that
// operation gives is worth nothing, as where it was given up.
type interrupter struct {
	kernels.Ops
	at, seen int
	leave    func()
}

func (o *interrupter) Until(*atomic.Bool) kernels.Ops { return o }

func (o *interrupter) now() bool {
	o.seen++
	if o.seen-1 == o.at {
		o.leave()
		return true
	}
	return false
}

func (o *interrupter) Linear(x []float32, rows int, ps []kernels.Projection) {
	if o.now() {
		for _, p := range ps {
			out, _ := p.W.Shape()
			poison(p.Dst[:rows*out])
		}
		return
	}
	o.Ops.Linear(x, rows, ps)
}

func (o *interrupter) Attend(jobs []kernels.AttnJob) {
	if o.now() {
		for _, j := range jobs {
			poison(j.Out)
		}
		return
	}
	o.Ops.Attend(jobs)
}

func poison(x []float32) {
	for i := range x {
		x[i] = float32(math.NaN())
	}
}

// Whoever leaves a step, in whichever of its operations, leaves the others with the
// bits that they would have had without him; nothing of his is touched afterwards.
func TestInterrupt(t *testing.T) {
	for _, kv := range []string{"f16", "hq2,important=10"} {
		c := small("llama", map[string]any{"head_dim": 16})
		b := newBench(t, writeModel(t, c, randomWeights("llama", c)), kv)
		texts := [][]terse.Token{randomText(150), randomText(90), randomText(80), randomText(20)}
		var want [][]float32 // after each text, of the first and the next token
		for _, text := range texts {
			s := b.longSequence(len(text) + 1)
			want = append(want, b.feed(s, text, len(text)), b.feed(s, text[:1], 1))
		}
		for _, leavers := range [][]int{{0}, {1, 3}, {2}, {0, 1, 2, 3}} {
			for at := 0; ; at++ {
				if !interrupted(b, kv, texts, want, leavers, at) {
					if at < 5*b.model.Config.Layers {
						t.Fatalf("%s: a step has only %d operations that can be interrupted", kv, at)
					}
					break
				}
			}
		}
	}
}

// longSequence is a sequence whose prompt has n-1 tokens, with coded pages.
func (b *bench) longSequence(n int) *sequence {
	s := b.newSequence()
	s.view.PromptLen = n - 1
	for range (n + b.g.Format.PageTokens - 1) / b.g.Format.PageTokens {
		var coded []byte
		if b.g.Format.Coded() {
			coded = make([]byte, b.g.CodedPage())
		}
		s.view.Coded = append(s.view.Coded, coded)
		s.view.Exact = append(s.view.Exact, make([]byte, b.g.ExactPage()))
	}
	return s
}

// interrupted runs a step that some leave in its at-th operation, and checks what it
// gives; false where the step has no such operation.
func interrupted(b *bench, kv string, texts [][]terse.Token, want [][]float32, leavers []int, at int) bool {
	b.t.Helper()
	what := fmt.Sprintf("%s: %v leave in operation %d", kv, leavers, at)
	plain := b.model.ops
	ops := &interrupter{Ops: plain, at: at}
	b.model.ops = ops
	defer func() { b.model.ops = plain }()
	var left bool
	var sequences []*sequence
	looked := 0
	var batch Batch
	in := &Interrupt{
		Left: func(i int) bool { return left && slices.Contains(leavers, i) },
		Looked: func() {
			if looked++; looked > 1 {
				return
			}
			for _, i := range leavers {
				if !batch.GivenUp(i) { // as few rows as are left of the last layer are computed to the end
					continue
				}
				for _, page := range slices.Concat(sequences[i].view.Exact, sequences[i].view.Coded) {
					clear(page)
				}
			}
		},
	}
	ops.leave = func() { left = true; in.Raised.Store(true) }
	for _, text := range texts {
		s := b.longSequence(len(text) + 1)
		sequences = append(sequences, s)
		b.add(&batch, s, text[:len(text)/2])
		batch.AppendMore(text[len(text)/2:], &s.view, s.pos) // a segment more
		s.pos = len(text)
		batch.WantLast()
	}
	batch.Interrupt = in
	b.scratch.stop = nil // each step has a backend of its own here
	logits, _, err := b.model.Forward(b.runner, &batch, &b.scratch)
	logits = slices.Clone(logits)
	switch {
	case ops.seen <= at:
		return false
	case looked != 1:
		b.t.Fatalf("%s: it was looked %d times", what, looked)
	case len(leavers) == len(texts):
		if !errors.Is(err, ErrAbandoned) {
			b.t.Fatalf("%s: error %v", what, err)
		}
		return true
	case err != nil:
		b.t.Fatalf("%s: %v", what, err)
	}
	b.model.ops = plain
	row, vocab := 0, b.model.Config.VocabSize
	for i, s := range sequences {
		if batch.GivenUp(i) {
			for _, page := range slices.Concat(s.view.Exact, s.view.Coded) {
				if slices.ContainsFunc(page, func(x byte) bool { return x != 0 }) {
					b.t.Fatalf("%s: segment %d was written to after it was given up", what, i)
				}
			}
			continue
		}
		if !slices.Equal(logits[row*vocab:][:vocab], want[2*i]) {
			b.t.Fatalf("%s: segment %d has other logits", what, i)
		}
		row++
		if got := b.feed(s, texts[i][:1], 1); !slices.Equal(got, want[2*i+1]) {
			b.t.Fatalf("%s: segment %d goes on otherwise", what, i)
		}
	}
	if row*vocab != len(logits) {
		b.t.Fatalf("%s: %d logits of %d rows", what, len(logits), row)
	}
	return true
}
