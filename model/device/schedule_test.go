package device

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels/cuda/cudatest"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// history is what a scenario gave, to be compared bit for bit: logits of its steps,
// and what was on the host when a layer was said to be there.
type history struct {
	logits [][]float32
	shown  [][]byte
}

// scenario computes two prompts for other workers, in chunks; a second runner takes
// them over as they come, beside others' steps, and goes on with them. One of its
// receptions ends midway, and pages are freed, used again and moved.
func scenario(t *testing.T, x *tiny, g *quant.Geometry) history {
	var h history
	o := RunnerOptions{Rows: 140, Sequences: 4, Context: 512}
	from, to := newBench(t, x.onDevice(g, o), 4<<20), newBench(t, x.onDevice(g, o), tight(g))
	from.staged = true
	step := func(b *bench, s ...*text) {
		t.Helper()
		if b.staged {
			b.batch.AfterLayer = func(layer int) {
				for _, s := range s {
					h.shown = append(h.shown, written(g, s, layer))
				}
			}
		}
		h.logits = append(h.logits, b.step(s...))
	}
	p, q := &text{ids: random(1, 200), prompt: 140}, &text{ids: random(2, 120), prompt: 70}
	from.add(p, 100)
	step(from, p)
	from.add(p, 40)
	from.add(q, 70)
	step(from, p, q)

	local := &text{ids: random(3, 100), prompt: 70}
	to.add(local, 70)
	left, q2, p2 := to.receive(q), to.receive(q), to.receive(p)
	left.come(2)
	p2.come(3)
	step(to, local)
	to.cache.Free(&left.table)
	next := &text{ids: random(4, 140), prompt: 80}
	to.add(next, 80) // where what was left half taken lay
	step(to, next)
	q2.come(1)
	p2.come(2)
	for _, s := range []*arriving{p2, q2} {
		to.add(next, 1)
		step(to, next)
		s.adopt()
		to.add(s.text, 1)
		to.add(local, 1)
		step(to, s.text, local)
	}
	to.cache.Free(&local.table)
	to.cache.Free(&next.table)
	for range 3 {
		to.add(p2.text, 1)
		to.add(q2.text, 1)
		step(to, p2.text, q2.text)
	}
	to.cache.Free(&q2.table)
	long, before := &text{ids: random(5, 350), prompt: 350}, to.places(p2.text)
	for range 7 {
		to.add(long, 50)
		to.add(p2.text, 1)
		step(to, long, p2.text)
	}
	if g.Format.Coded() && slices.Equal(before, to.places(p2.text)) {
		t.Error("no page has moved")
	}
	return h
}

// tight is memory for what scenario has at once, so that where its exact pages have
// left holes they move to make room for codes.
func tight(g *quant.Geometry) int64 {
	codes := 3
	if g.Format.Family == quant.FamilyHackV2 { // which codes every token
		codes = 5
	}
	return int64(9*g.ExactPage() + codes*g.CodedPage())
}

// places are where a text's exact pages are.
func (b *bench) places(s *text) []uint64 {
	at := make([]uint64, len(s.view.ExactIDs))
	b.r.(*Runner).pages.arena.Addresses(kvcache.Exact, s.view.ExactIDs, 0, at)
	return at
}

// arriving is a text on its way to a bench.
type arriving struct {
	*text
	b         *bench
	from      *text
	reception model.Reception
	pieces    []quant.Piece // that have not come
}

// receive begins to take over another bench's text.
func (b *bench) receive(from *text) *arriving {
	b.t.Helper()
	s := &arriving{text: &text{ids: from.ids, prompt: from.prompt}, b: b, from: from}
	if !b.cache.Grow(&s.table, s.prompt, s.prompt) {
		b.t.Fatal("the cache is full")
	}
	b.pages.Stage(&s.table, s.prompt, &s.view)
	s.view.Staged = 0
	s.reception = b.r.Receive(&s.view)
	g := b.r.Geometry()
	for layer := range g.Layers {
		for _, p := range g.Format.Handover(s.prompt) {
			s.pieces = append(s.pieces, quant.Piece{Layer: layer, Page: p.Page, Coded: p.Coded})
		}
	}
	rand.New(rand.NewPCG(6, uint64(s.prompt))).Shuffle(len(s.pieces), func(i, k int) { s.pieces[i], s.pieces[k] = s.pieces[k], s.pieces[i] })
	return s
}

// come has n more pieces come.
func (s *arriving) come(n int) {
	s.b.t.Helper()
	came := s.land(n)
	if err := s.reception.Take(came); err != nil {
		s.b.t.Fatal(err)
	}
}

// land writes n more pieces to the host.
func (s *arriving) land(n int) []quant.Piece {
	came := s.pieces[:n]
	s.pieces = s.pieces[n:]
	for _, p := range came {
		if p.Coded {
			copy(s.view.CodedLayer(p.Page, p.Layer), s.from.view.CodedLayer(p.Page, p.Layer))
		} else {
			copy(s.view.ExactLayer(p.Page, p.Layer), s.from.view.ExactLayer(p.Page, p.Layer))
		}
	}
	return came
}

// adopt takes the text over; the last piece is one that nobody told of.
func (s *arriving) adopt() {
	s.b.t.Helper()
	s.come(len(s.pieces) - 1)
	s.land(1)
	if err := s.reception.Adopt(s.prompt); err != nil {
		s.b.t.Fatal(err)
	}
	s.n = s.prompt
}

// written is what a hand-over of s reads of a layer, as far as it is written.
func written(g *quant.Geometry, s *text, layer int) (all []byte) {
	page := g.Format.PageTokens
	for _, p := range g.Format.Handover(s.prompt) {
		whole := (p.Page+1)*page <= s.n
		switch {
		case p.Page*page >= s.n || p.Coded && !whole:
		case p.Coded:
			all = append(all, s.view.CodedLayer(p.Page, layer)...)
		case whole: // of others, rows that are not written yet hold anything
			all = append(all, s.view.ExactLayer(p.Page, layer)...)
		}
	}
	return all
}

// Whenever a GPU does what nobody has told it to wait for, it computes the same bits.
func TestSchedules(t *testing.T) {
	if *gpuFlag {
		t.Skip("only emulated GPUs have schedules")
	}
	some := []int{cudatest.AtOnce, cudatest.Late, cudatest.CopiesFirst}
	gpus := []*tiny{}
	for _, n := range append(some, cudatest.KernelsFirst, cudatest.Random) {
		gpus = append(gpus, newTinyOn(t, 1, n))
	}
	for kv, gpus := range map[string][]*tiny{"hq3": gpus, "f16": gpus[:len(some)], "hack:v2": gpus[:len(some)]} {
		if testing.Short() && kv != "hq3" {
			continue
		}
		var want history
		for i, x := range gpus {
			t.Run(fmt.Sprintf("%s/%d", kv, x.device.gpu.options.Ordinal), func(t *testing.T) {
				mine := *x
				mine.t = t // what it opens ends here
				got := scenario(t, &mine, x.geometry(kv))
				if i == 0 {
					want = got
					return
				}
				for k := range want.logits {
					if !slices.Equal(got.logits[k], want.logits[k]) {
						t.Errorf("step %d: other logits than where work is done at once, %.2g apart", k, far(got.logits[k], want.logits[k]))
					}
				}
				for k := range want.shown {
					if !bytes.Equal(got.shown[k], want.shown[k]) {
						t.Errorf("layer %d of the steps: other bytes on the host than where work is done at once", k)
					}
				}
			})
		}
	}
}
