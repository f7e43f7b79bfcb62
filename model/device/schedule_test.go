package device

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels/cuda/cudatest"
	"github.com/terse-llm/terse/quant"
)

// history is what a scenario gave, to be compared bit for bit: logits of its steps,
// and what was on the host when a layer was said to be there.
type history struct {
	logits [][]float32
	shown  [][]byte
}

// scenario computes two prompts for other workers, in chunks, has a second runner
// take one of them over and goes on there, with another prompt beside it and pages
// freed, moved and used again.
func scenario(t *testing.T, x *tiny, g *quant.Geometry) history {
	var h history
	o := RunnerOptions{Rows: 140, Sequences: 4, Context: 512}
	from, to := newBench(t, x.onDevice(g, o), 4<<20), newBench(t, x.onDevice(g, o), 900<<10)
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

	other := &text{ids: random(3, 100), prompt: 70}
	to.add(other, 70)
	step(to, other)
	got := []*text{{ids: p.ids, prompt: p.prompt}, {ids: q.ids, prompt: q.prompt}}
	for i, s := range []*text{p, q} {
		to.receive(got[i], s)
		to.add(got[i], 1)
		to.add(other, 1)
		step(to, got[i], other)
	}
	to.cache.Free(&other.table)
	for range 3 {
		to.add(got[0], 1)
		to.add(got[1], 1)
		step(to, got...)
	}
	to.cache.Free(&got[1].table)
	late := &text{ids: random(4, 140), prompt: 130}
	to.add(late, 130)
	to.add(got[0], 1)
	step(to, late, got[0])
	return h
}

// receive takes s over from another bench's text.
func (b *bench) receive(s, from *text) {
	b.t.Helper()
	if !b.cache.Grow(&s.table, s.prompt, s.prompt) {
		b.t.Fatal("the cache is full")
	}
	b.pages.Stage(&s.table, s.prompt, &s.view)
	s.view.Staged = 0
	for _, p := range b.r.Geometry().Format.Handover(s.prompt) {
		if p.Coded {
			copy(s.view.Coded[p.Page], from.view.Coded[p.Page])
		} else {
			copy(s.view.Exact[p.Page], from.view.Exact[p.Page])
		}
	}
	if err := b.r.Adopt(&s.view, s.prompt); err != nil {
		b.t.Fatal(err)
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
	gpus := []*tiny{newTinyOn(t, 1, cudatest.AtOnce)}
	for _, n := range []int{cudatest.Late, cudatest.CopiesFirst, cudatest.KernelsFirst, cudatest.Random} {
		gpus = append(gpus, newTinyOn(t, 1, n))
	}
	formats := []string{"f16", "hq3", "hack:v2"}
	if testing.Short() {
		formats = formats[1:2]
	}
	for _, kv := range formats {
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
