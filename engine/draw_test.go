package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/engine/sample"
	"github.com/terse-llm/terse/kernels/cuda"
)

// drawn is every filter, alone and with others.
var drawn = []terse.Sampling{
	{Temperature: 1}, {Temperature: 0.3}, {Temperature: 2},
	{Temperature: 1, TopP: 0.9}, {Temperature: 0.7, TopP: 0.5}, {Temperature: 1.5, TopP: 0.99},
	{Temperature: 1, MinP: 0.05}, {Temperature: 1, MinP: 1}, {Temperature: 1, TopP: 0.8, MinP: 0.1},
	{Temperature: 1, TopK: 1}, {Temperature: 1, TopK: 40}, {Temperature: 1, TopK: 1 << 20}, {Temperature: 0.8, TopK: 50, TopP: 0.9},
	{Temperature: 1, TopK: 500, MinP: 0.02}, {Temperature: 1, TopK: 20, TopP: 0.7, MinP: 0.3},
}

// hardLogits are n logits with ties, impossible tokens and some that are no numbers.
func hardLogits(r *rand.Rand, n int) []float32 {
	row := make([]float32, n)
	for i := range row {
		row[i] = float32(r.NormFloat64() * 3)
		switch r.IntN(40) {
		case 0:
			row[i] = float32(math.Inf(-1))
		case 1:
			row[i] = float32(math.NaN())
		case 2, 3, 4, 5, 6:
			row[i] = 1.5
		}
	}
	return row
}

// Tokens drawn on a GPU are those that package sample draws from the same logits
// with the same random numbers.
func TestDraw(t *testing.T) {
	each, sizes := 4, []int{33, 3000}
	if *gpuFlag {
		each, sizes = 50, []int{1, 33, 3000, 128256}
	}
	r := rand.New(rand.NewPCG(1, 33))
	for _, n := range sizes {
		var logits []float32
		var how []cuda.Draw
		var want []int32
		for i, p := range drawn {
			for k := range each {
				row := hardLogits(r, n)
				p.Seed, p.Logprobs = uint64(100*i+k), -1
				s := sample.New(p, nil)
				d, enough := s.Drawing(k)
				if !enough {
					t.Fatalf("%+v wants more than a draw", p)
				}
				token, _ := s.Next(row, k)
				logits, want = append(logits, row...), append(want, int32(token))
				how = append(how, cuda.Draw{U: d.U, Scale: float32(1 / float64(d.Temperature)), TopP: d.TopP, MinP: d.MinP, TopK: int32(d.TopK), Draws: 1})
			}
		}
		last := sample.New(terse.Sampling{Logprobs: -1}, nil)
		best, _ := last.Next(logits[len(logits)-n:], 0)
		how[len(how)-1].Draws, want[len(want)-1] = 0, int32(best)
		got := drawOnGPU(t, logits, how, n)
		wrong, different := "", 0
		for i := range got {
			if got[i] != want[i] {
				different++
				wrong += fmt.Sprintf("\n%+v: token %d, the host picks %d", drawn[i/each], got[i], want[i])
			}
		}
		// A draw may fall between two sums that are rounded otherwise.
		if different > len(got)/500 {
			t.Errorf("%d of %d tokens of %d differ:%s", different, len(got), n, wrong)
		}
	}
}

// drawOnGPU draws a token of each row of n logits.
func drawOnGPU(t *testing.T, logits []float32, how []cuda.Draw, n int) []int32 {
	t.Helper()
	driver, err := cuda.Load(deviceOptions(t, 0).Driver...)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := driver.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]int32, len(how))
	err = dev.Do(func(c *cuda.Context) error {
		m, err := c.LoadKernels()
		if err != nil {
			return err
		}
		layer, err := c.NewLayer(m, cuda.F16)
		drawer, err2 := c.NewDrawer(m)
		var at [3]cuda.Ptr
		for i, size := range []int{4 * len(logits), cuda.DrawBytes * len(how), 4 * len(how)} {
			p, err3 := c.Alloc(size)
			at[i], err = p, errors.Join(err, err3)
		}
		rules := make([]byte, cuda.DrawBytes*len(how)+8)
		copy(cuda.Draws(rules), how)
		return errors.Join(err, err2, c.Upload(at[0], cuda.Bytes(logits)), c.Upload(at[1], rules[:cuda.DrawBytes*len(how)]),
			c.Argmax(layer, at[2], at[0], len(how), n, 0), c.Draw(drawer, at[2], at[0], at[1], len(how), n, 0), c.Synchronize(0),
			c.Download(cuda.Bytes(tokens), at[2]), c.Free(at[0]), c.Free(at[1]), c.Free(at[2]), c.CloseModule(m))
	})
	if err = errors.Join(err, dev.Close()); err != nil {
		t.Fatal(err)
	}
	return tokens
}

// An engine on a GPU says the same whether its tokens are drawn there or, as when
// log-probabilities are wanted, on the host from the same logits.
func TestDrawnText(t *testing.T) {
	gpu := newDeviceRig(t, "f16", 0).start(t)
	for i, p := range []terse.Sampling{{Temperature: 0.9, TopP: 0.95, Seed: 5}, {Temperature: 1.2, TopK: 30, Seed: 6}} {
		var texts [2][]terse.Token
		for k, logprobs := range []int{-1, 0} {
			p.Logprobs = logprobs
			req := request(fmt.Sprint(i, k), prompt(uint64(i), 40), 8)
			p.PromptLogprobs = req.Sampling.PromptLogprobs
			req.Sampling = p
			got, _, err := gpu.collect(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			texts[k] = got
		}
		if len(texts[0]) != 8 || !slices.Equal(texts[0], texts[1]) {
			t.Errorf("%+v: %v are drawn on the GPU, %v on the host", p, texts[0], texts[1])
		}
	}
}
