package device

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"testing"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kernels/cuda/cudatest"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
)

// A prompt's important tokens are those that the processor chooses, but for a few:
// products in float16 move what tokens weigh a little. Pages are what package quant
// makes of their exact form with the tokens chosen, to the byte, on the device and on
// the host, however the prompt's last queries come in steps.
func TestImportant(t *testing.T) {
	once, late, copies := cudatest.AtOnce, cudatest.Late, cudatest.CopiesFirst
	if *gpuFlag {
		late, copies = once, once
	}
	for i, tc := range []struct {
		gpu    int
		kv     string
		chunks []int // the last queries in a step, in several and in two with one alone
	}{
		{once, "hq2b,important=6", []int{290, 30, 10}}, {once, "hq2,important=10", []int{330}}, {once, "hq2+,important=6", []int{329, 1}},
		{late, "hq2b,important=6", []int{329, 1}}, {copies, "hq2,important=10", []int{290, 30, 10}},
	} {
		if testing.Short() && i > 0 {
			continue
		}
		x := newTinyOn(t, 1, tc.gpu)
		g := x.geometry(tc.kv)
		c := chosen{t: t, kv: tc.kv, r: x.onDevice(g, RunnerOptions{Rows: 330, Sequences: 4, Context: 512})}
		run := func(d, h *bench, said func(string, float64)) { ended(d, h, tc.chunks, nil, said) }
		most := max(bound(tc.kv), x.sensitivity(tc.kv, run))
		ended(newBench(t, c.r, 8<<20), newBench(t, x.onHost(g), 8<<20), tc.chunks, c.pages, func(what string, far float64) {
			if !(far < most) {
				t.Errorf("%s, chunks of %v, %s: logits are %.2g apart, of %.2g", tc.kv, tc.chunks, what, far, most)
			}
		})
		c.check()
	}
}

// ended has a prompt of 330 tokens end and some rows follow it, on two benches, and
// says of each row how far its logits lie apart. then sees the prompt when it has ended.
func ended(d, h *bench, chunks []int, then func(d, h *text), said func(what string, far float64)) {
	var s [2]*text
	for k, b := range []*bench{d, h} {
		b.staged = true
		s[k] = &text{ids: random(1, 340), prompt: 330}
		for _, n := range chunks {
			told := 0
			b.batch.AfterLayer, b.batch.AfterAttend = func(int) {}, func(int) { told++ }
			b.add(s[k], n)
			b.step(s[k])
			if layers := b.r.Geometry().Layers; told != layers {
				b.t.Errorf("told of %d layers of %d that attended", told, layers)
			}
		}
	}
	if then != nil {
		then(s[0], s[1])
	}
	for range 3 {
		var logits [2][]float32
		for k, b := range []*bench{d, h} {
			b.add(s[k], 1)
			logits[k] = b.step(s[k])
		}
		said("a row", far(logits[0], logits[1]))
	}
}

// A prompt that begins as one before it reads that one's pages as codes, of important
// tokens with their second planes, and chooses among the others, as on the processor.
func TestImportantReuse(t *testing.T) {
	x := newTiny(t, 1)
	for _, kv := range []string{"hq2b,important=6", "hq2,important=10"} {
		if testing.Short() && kv != "hq2,important=10" {
			continue
		}
		g := x.geometry(kv)
		d := newBench(t, x.onDevice(g, RunnerOptions{Rows: 330, Sequences: 4, Context: 512}), 8<<20)
		most := max(bound(kv), x.sensitivity(kv, reused))
		reused(d, newBench(t, x.onHost(g), 8<<20), func(what string, far float64) {
			if !(far < most) {
				t.Errorf("%s, %s: logits are %.2g apart, of %.2g", kv, what, far, most)
			}
		})
	}
}

// reused runs a prompt on two benches and then one that begins as it, and says of the
// second and of some rows behind it how far logits lie apart.
func reused(d, h *bench, said func(what string, far float64)) {
	ids := random(1, 330)
	var s [2]*text
	var logits [2][]float32
	for k, b := range []*bench{d, h} {
		first := &text{ids: ids, prompt: len(ids)}
		b.add(first, len(ids))
		b.step(first)
		s[k] = &text{ids: slices.Concat(ids[:290], random(2, 150)), prompt: 430}
		pages := 0
		if pages, s[k].table = b.cache.Match(s[k].ids); pages != 4 {
			b.t.Errorf("%d pages of a prompt are there, want 4", pages)
		}
		s[k].n = 64 * pages
		b.add(s[k], s[k].prompt-s[k].n)
		logits[k] = b.step(s[k])
	}
	said("a prompt that begins as another", far(logits[0], logits[1]))
	for range 3 {
		for k, b := range []*bench{d, h} {
			b.add(s[k], 1)
			logits[k] = b.step(s[k])
		}
		said("a row behind it", far(logits[0], logits[1]))
	}
}

// chosen compares the tokens that two sides have chosen.
type chosen struct {
	t          *testing.T
	kv         string
	r          *Runner
	all, other int
}

// fetch is a page's bytes on the device.
func (c *chosen) fetch(kind kvcache.Kind, id int32) []byte {
	c.t.Helper()
	var at [1]uint64
	r := c.r
	r.pages.arena.Addresses(kind, []int32{id}, uint64(r.pages.base), at[:])
	page := make([]byte, r.pages.cache.PageBytes(kind))
	if err := r.dev.Do(func(ctx *cuda.Context) error { return ctx.Download(page, cuda.Ptr(at[0])) }); err != nil {
		c.t.Fatal(err)
	}
	return page
}

// pages compares those of a prompt that could be chosen of. The exact form of the
// device's is gone or going: it is read before other steps.
func (c *chosen) pages(d, h *text) {
	c.t.Helper()
	g := c.r.geometry
	lo, hi := g.Format.Selectable(d.prompt)
	var w quant.Scratch
	for page := lo / 64; page < hi/64; page++ {
		coded, exact := c.fetch(kvcache.Coded, d.view.CodedIDs[page]), c.fetch(kvcache.Exact, d.view.ExactIDs[page])
		for layer := range g.Layers {
			l := g.At(layer)
			got := coded[g.CodedStart(layer):g.CodedStart(layer+1)]
			if !bytes.Equal(got, d.view.CodedLayer(page, layer)) {
				c.t.Errorf("%s: page %d of layer %d is another on the host", c.kv, page, layer)
			}
			from := exact[layer*g.ExactBytes():][:g.ExactBytes()]
			want := make([]byte, len(got))
			l.Encode(quant.EncodeArgs{Exact: from, Coded: want, Layer: layer, First: 64 * page, Hi: 64})
			for head := range g.KVHeads {
				set := c.set(got, l, head)
				other := c.set(h.view.CodedLayer(page, layer), l, head)
				c.all += bits.OnesCount64(other)
				c.other += bits.OnesCount64(other &^ set)
				l.GiveSecond(want, from, head, set, &w)
			}
			if !bytes.Equal(got, want) {
				c.t.Errorf("%s: page %d of layer %d is not what its exact form makes", c.kv, page, layer)
			}
		}
	}
}

// set is the important tokens of a head.
func (c *chosen) set(layer []byte, g *quant.Geometry, head int) uint64 {
	return binary.LittleEndian.Uint64(g.CodedHead(layer, head)[g.HQ[quant.HalfV].Mask:])
}

// check allows one in eight tokens to be another one.
func (c *chosen) check() {
	c.t.Helper()
	if c.all == 0 || 8*c.other > c.all {
		c.t.Errorf("%s: %d of the %d tokens that the processor chose are not chosen", c.kv, c.other, c.all)
	}
	c.t.Logf("%s: %d of %d tokens are others", c.kv, c.other, c.all)
}
