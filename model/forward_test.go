package model

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/quant"
)

func smallBench(t *testing.T) *bench {
	t.Helper()
	c := small("llama", nil)
	return newBench(t, writeModel(t, c, randomWeights("llama", c)), "f16")
}

// Batches that would read beyond the weights or the buffers are refused.
func TestForwardRefuses(t *testing.T) {
	b := smallBench(t)
	f := func(want string, batch Batch) {
		t.Helper()
		if _, _, err := b.model.Forward(b.runner, &batch, &b.scratch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	view := &quant.View{Geometry: b.g, Exact: [][]byte{make([]byte, b.g.ExactPage())}}
	two := []attention.Segment{{View: view, Rows: 2}}
	f("token -1", Batch{Tokens: []int32{0, -1}, Segments: two})
	f("token 50 is outside the vocabulary of 50", Batch{Tokens: []int32{50, 0}, Segments: two})
	f("cover 2 of 3 rows", Batch{Tokens: []int32{0, 0, 0}, Segments: two})
	f("row 0 is next", Batch{Tokens: []int32{0, 0}, Segments: []attention.Segment{{View: view, Row: 1, Rows: 2}}})
	f("position -1", Batch{Tokens: []int32{0}, Segments: []attention.Segment{{View: view, Rows: 1, Pos: -1}}})
	f("logits of row 2 of 2", Batch{Tokens: []int32{0, 0}, Segments: two, Logits: []int{2}})
}

// AfterLayer comes once for each layer in order, with the layer's keys and
// values in the pages and the next layer's not.
func TestAfterLayer(t *testing.T) {
	b := smallBench(t)
	s := b.newSequence()
	var batch Batch
	b.add(&batch, s, randomText(3))
	written := func(layer int) bool {
		return slices.ContainsFunc(s.view.ExactLayer(0, layer), func(x byte) bool { return x != 0 })
	}
	var seen []string
	batch.AfterLayer = func(layer int) { seen = append(seen, fmt.Sprint(layer, written(0), written(1))) }
	b.run(&batch)
	if want := []string{"0 true false", "1 true true"}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
	batch.Reset()
	if batch.Rows() != 0 || batch.AfterLayer != nil || batch.Interrupt != nil || len(batch.Segments) != 0 || len(batch.Logits) != 0 {
		t.Errorf("after Reset: %+v", batch)
	}
}

// Logits come for the rows asked for, whatever the others are: the last layer
// is computed for these alone.
func TestLogitRows(t *testing.T) {
	b := smallBench(t)
	texts := [][]terse.Token{randomText(5), randomText(4), randomText(3)}
	var all [][]float32
	for _, text := range texts {
		all = append(all, b.all(text)...)
	}
	for _, rows := range [][]int{{0}, {11}, {3, 4, 5}, {0, 2, 3, 4, 8, 9, 11}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {}} {
		var batch Batch
		for _, text := range texts {
			b.add(&batch, b.newSequence(), text)
		}
		batch.Logits = rows
		got := b.run(&batch)
		if len(got) != len(rows) {
			t.Fatalf("%d rows of logits for %v", len(got), rows)
		}
		for i, row := range rows {
			if !slices.Equal(got[i], all[row]) {
				t.Errorf("rows %v: answer %d is not row %d of the batch", rows, i, row)
			}
		}
	}
}

// A decode step of the graph allocates nothing.
func TestDecodeAllocates(t *testing.T) {
	for _, kv := range []string{"f16", "hq3"} {
		c := small("llama", map[string]any{"head_dim": 16})
		b := newBench(t, writeModel(t, c, randomWeights("llama", c)), kv)
		s := b.newSequence()
		b.feed(s, randomText(90), 90)
		var batch Batch
		step := func() {
			batch.Reset()
			batch.Append([]terse.Token{1}, &s.view, s.pos)
			batch.WantLast()
			if _, _, err := b.model.Forward(b.runner, &batch, &b.scratch); err != nil {
				t.Fatal(err)
			}
		}
		step()
		if n := testing.AllocsPerRun(50, step); n > 0 {
			t.Errorf("%s: %v allocations", kv, n)
		}
	}
}

// Activations are not allocated anew once the scratch has grown.
func TestScratchIsReused(t *testing.T) {
	b := smallBench(t)
	s := b.newSequence()
	b.feed(s, randomText(20), 20)
	var batch Batch
	grown := cap(b.scratch.gate)
	for range 3 {
		batch.Reset()
		b.add(&batch, s, []terse.Token{1})
		batch.WantLast()
		b.run(&batch)
	}
	if cap(b.scratch.gate) != grown {
		t.Errorf("a smaller batch changed the scratch from %d to %d", grown, cap(b.scratch.gate))
	}
}
