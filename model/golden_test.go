package model

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels"
)

// golden is what transformers computes with the built-in model in float32.
type golden struct {
	Golden []struct {
		Prompt string        `json:"prompt"`
		IDs    []terse.Token `json:"ids"`
		Top    [][2]float64  `json:"last_logits_top"`
		Greedy []terse.Token `json:"greedy"` // the prompt, then what follows
	} `json:"golden"`
	Longs []struct {
		IDs    []terse.Token `json:"ids"`
		Top    [][2]float64  `json:"last_logits_top"`
		Greedy []terse.Token `json:"greedy"`
	} `json:"longs"`
	Scored []struct {
		Source string        `json:"source"`
		IDs    []terse.Token `json:"ids"`
		Next   []float64     `json:"next_logprob"`
	} `json:"scored"`
}

func readGolden(t *testing.T) golden {
	t.Helper()
	var g golden
	readJSON(t, filepath.Join("..", "internal", "defaultmodel", "testdata", "golden.json"), &g)
	if len(g.Golden) < 4 || len(g.Longs) < 4 || len(g.Scored) < 4 {
		t.Fatal("the golden file has lost entries")
	}
	return g
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checkTop compares the largest logits within 2e-3 of their range.
func checkTop(t *testing.T, logits []float32, top [][2]float64) {
	t.Helper()
	bound := 2e-3 * (top[0][1] - top[len(top)-1][1])
	worst := 0.0
	for _, want := range top {
		worst = max(worst, math.Abs(float64(logits[int(want[0])])-want[1]))
	}
	t.Logf("the %d largest logits differ by at most %.2g of %.2g allowed", len(top), worst, bound)
	if !(worst <= bound) || len(top) < 20 {
		t.Errorf("one of %d logits is off by %g, bound %g", len(top), worst, bound)
	}
}

// The prompts' largest logits, and 160 greedy tokens of each.
func TestGolden(t *testing.T) {
	b := newDefaultBench(t, "f16", bestOps(t))
	var answers []*answer
	for _, g := range readGolden(t).Golden {
		a := &answer{s: b.newSequence(), want: g.Greedy[len(g.IDs):]}
		a.logits = b.feed(a.s, g.IDs, 512)
		checkTop(t, a.logits, g.Top)
		if testing.Short() {
			a.want = a.want[:40]
		}
		answers = append(answers, a)
	}
	b.follow(answers...)
}

// The log-probabilities of texts of 600 tokens. With keys and values in float32
// the graph is transformers' own. Rounding them to float16 (relative 2⁻¹², scores
// of 10 and more, eight layers) costs 8e-4 on average and some 4e-3 to 7e-3 at
// most, and no change of basis saves much of it: docs/quality.md has the figures.
func TestGoldenScores(t *testing.T) {
	f := func(ops kernels.Ops, kv string, text int, mean, each float64) {
		t.Helper()
		g := readGolden(t).Scored[text]
		rows := newDefaultBench(t, kv, ops).all(g.IDs)
		worst, sum := 0.0, 0.0
		for i, want := range g.Next {
			d := math.Abs(logProb(rows[i], g.IDs[i+1]) - want)
			worst, sum = max(worst, d), sum+d*d
		}
		rms := math.Sqrt(sum / float64(len(g.Next)))
		t.Logf("%s, %s, %s: %d log-probabilities differ by %.2g on average and %.2g at most", ops.Name(), kv, g.Source, len(g.Next), rms, worst)
		if !(worst <= each && rms <= mean) || len(g.Next) != len(g.IDs)-1 {
			t.Errorf("%s, %s, %s: log-probabilities are off by %g on average and %g at most, bounds %g and %g", ops.Name(), kv, g.Source, rms, worst, mean, each)
		}
	}
	best := bestOps(t)
	for text := range 4 {
		f(best, "f32", text, 2e-5, 1e-4)
		f(best, "f16", text, 1.2e-3, 1e-2)
	}
	if testing.Short() {
		return
	}
	for _, ops := range backends(t) {
		f(ops, "f32", 0, 2e-5, 1e-4)
		f(ops, "f16", 1, 1.2e-3, 1e-2)
	}
}

// Facts found in long texts, up to the whole context.
func TestGoldenLong(t *testing.T) {
	b := newDefaultBench(t, "f16", bestOps(t))
	for _, g := range readGolden(t).Longs {
		if testing.Short() && len(g.IDs) > 1000 {
			continue
		}
		t.Run(fmt.Sprint(len(g.IDs)), func(t *testing.T) {
			b.t = t
			s := b.newSequence()
			logits := b.feed(s, g.IDs, 512)
			checkTop(t, logits, g.Top)
			b.follow(&answer{s, logits, g.Greedy})
		})
	}
}

// Chunks of any size give the same bits: every sum has the same order. (Another
// backend than ref may promise less.)
func TestChunks(t *testing.T) {
	b := newDefaultBench(t, "f16", bestOps(t))
	g := readGolden(t).Longs[0]
	prompt := g.IDs[len(g.IDs)-150:]
	want := b.feed(b.newSequence(), prompt, len(prompt))
	for _, chunk := range []int{1, 7, 64, 149} {
		s := b.newSequence()
		got := b.feed(s, prompt, chunk)
		if d := distance(got, want); d != 0 {
			t.Errorf("chunks of %d: logits differ by %g", chunk, d)
		}
	}
}

// Sequences in one batch do not touch each other.
func TestBatch(t *testing.T) {
	b := newDefaultBench(t, "f16", bestOps(t))
	g := readGolden(t)
	var batch Batch
	var alone [][]float32
	var views []*sequence
	for _, p := range g.Golden {
		alone = append(alone, b.feed(b.newSequence(), p.IDs, 512))
		views = append(views, b.newSequence())
	}
	for i, p := range g.Golden { // all but the last token of each
		b.add(&batch, views[i], p.IDs[:len(p.IDs)-1])
	}
	if rows := b.run(&batch); len(rows) != 0 {
		t.Fatalf("%d rows of logits, none were wanted", len(rows))
	}
	batch.Reset()
	for i, p := range g.Golden { // then these together, in one step
		b.add(&batch, views[i], p.IDs[len(p.IDs)-1:])
		batch.WantLast()
	}
	for i, row := range b.run(&batch) {
		if d := distance(row, alone[i]); !(d <= 1e-4*spread(row)) {
			t.Errorf("sequence %d differs by %g from the one computed alone", i, d)
		}
	}
}
