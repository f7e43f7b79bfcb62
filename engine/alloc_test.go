package engine

import (
	"context"
	"runtime"
	"testing"

	"github.com/terse-llm/terse"
)

// Once a sequence decodes, a step allocates nothing, from the plan to its
// consumer's hands, but for new pages and the memory of outputs, which come many
// at a time.
func TestDecodeAllocates(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector, which runs the short tests, makes pools forget")
	}
	r := newRig(t, "hq3", func(c *Config) { c.MaxContext = 2048 }).start(t)
	const first, last = 200, 712
	var before, after runtime.MemStats
	n := 0
	err := r.Generate(context.Background(), &terse.Request{
		ID: "a", Prompt: prompt(1, 100), MaxTokens: last + 1, Sampling: terse.Sampling{Logprobs: -1, PromptLogprobs: -1},
	}, func(o terse.Output) error {
		n += len(o.Tokens)
		switch n {
		case first:
			runtime.ReadMemStats(&before)
		case last:
			runtime.ReadMemStats(&after)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	perStep := float64(after.Mallocs-before.Mallocs) / (last - first)
	t.Logf("%.3f allocations, %.0f bytes a step", perStep, float64(after.TotalAlloc-before.TotalAlloc)/(last-first))
	if perStep > 0.2 {
		t.Errorf("%.3f allocations a step", perStep)
	}
}
