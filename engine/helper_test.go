package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/quant"
)

// patience bounds every wait for something that must come; no test measures by it.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// formats are the KV formats that engine behaviour is tested in; -short, which
// the race detector runs with, keeps to one of each kind.
func formats() []string {
	if testing.Short() {
		return []string{"f16", "hq3"}
	}
	return []string{"f16", "hq2", "hq3", "hack", "hack:v2", "int4", "kivi", "cachegen", "kvquant", "hq2,important=10"}
}

// rig is an engine over the tiny model and what an oracle needs.
type rig struct {
	*Engine
	cfg   Config
	model *model.Model
	cal   *quant.Calibration // of formats that cannot do without
}

// newRig makes an engine, not yet running; change may adjust its configuration.
func newRig(t testing.TB, format string, change func(*Config)) *rig {
	t.Helper()
	ops := cpu.Best(2)
	t.Cleanup(ops.Close)
	m, _ := modeltest.Tiny(t, 1, ops)
	cal := calibrationOf(format, &m.Config)
	f, err := quant.ParseFormat(format, cal != nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.Config.CalibratedGeometry(f, cal)
	if err != nil {
		t.Fatal(err)
	}
	run, err := model.NewRunner(m, g, cal)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Runner: run, KVMemory: 64 << 20, MaxSeqs: 8, StepTokens: 100}
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{e, cfg, m, cal}
}

// calibrationOf is a calibration of the tiny model for a format that wants one, nil for
// others.
func calibrationOf(format string, c *model.Config) *quant.Calibration {
	switch {
	case strings.HasPrefix(format, "kvquant"):
		return cases.Calibration(c.Layers, c.KVHeads, c.HeadDim)
	case strings.HasPrefix(format, "hq2b"):
		return modeltest.Calibration([...]uint16{48, 16})
	}
	return nil
}

// start runs the engine until the test ends.
func (r *rig) start(t testing.TB) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// greedy is what the model generates after prompt with nothing else going on:
// one session, one prefill call, one token at a time.
func (r *rig) greedy(t testing.TB, prompt []terse.Token, n int) []terse.Token {
	t.Helper()
	s, err := session.New(r.model, r.cfg.Runner.Geometry(), r.cal, len(prompt)+n)
	if err != nil {
		t.Fatal(err)
	}
	s.Prompt(len(prompt))
	var out []terse.Token
	for next := prompt; len(out) < n; next = out[len(out)-1:] {
		logits, err := s.Forward(next, session.LastLogits)
		if err != nil {
			t.Fatal(err)
		}
		best := 0
		for i, v := range logits {
			if v > logits[best] {
				best = i
			}
		}
		out = append(out, terse.Token(best))
	}
	return out
}

// prompt is n random tokens of a seed, none of them a stop token.
func prompt(seed uint64, n int) []terse.Token {
	r := rand.New(rand.NewPCG(seed, 2))
	p := make([]terse.Token, n)
	for i := range p {
		p[i] = terse.Token(2 + r.IntN(modeltest.Vocab-2))
	}
	return p
}

func request(id string, prompt []terse.Token, n int) *terse.Request {
	return &terse.Request{ID: id, Prompt: prompt, MaxTokens: n, Sampling: terse.Sampling{Logprobs: -1, PromptLogprobs: -1}}
}

// collect runs a request and gathers its tokens and its last output.
func (r *rig) collect(ctx context.Context, req *terse.Request) ([]terse.Token, terse.Output, error) {
	var tokens []terse.Token
	var last terse.Output
	err := r.Generate(ctx, req, func(o terse.Output) error {
		tokens = append(tokens, o.Tokens...)
		last = o
		return nil
	})
	return tokens, last, err
}

func sameTokens(t testing.TB, what string, got, want []terse.Token) {
	t.Helper()
	if !slices.Equal(got, want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		t.Fatalf("%s: token %d of %d differs: got %s, want %s", what, i, len(want), tail(got, i), tail(want, i))
	}
}

func tail(tokens []terse.Token, i int) string {
	if i >= len(tokens) {
		return "the end"
	}
	return fmt.Sprint(tokens[i:min(len(tokens), i+4)])
}
