package sched

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
)

// Prompts of several requests (n > 1) are one slice; what each generates is not.
func TestRequestsMayShareAPrompt(t *testing.T) {
	s := New(Config{Cache: testCache(t, "f16", 20, 0), MaxContext: 100})
	prompt := append(make([]terse.Token, 0, 100), 1, 2, 3)
	now := time.Unix(0, 0)
	s.Step([]Event{
		Add{ID: "a", Prompt: prompt, MaxTokens: 5},
		Add{ID: "b", Prompt: prompt, MaxTokens: 5},
	}, now)
	plan := s.Step([]Event{&Sampled{ID: "a", Token: 10}, &Sampled{ID: "b", Token: 20}}, now)
	require.Len(t, plan.Rows, 2)
	require.Equal(t, []terse.Token{10}, plan.Rows[0].Tokens)
	require.Equal(t, []terse.Token{20}, plan.Rows[1].Tokens)
	require.Equal(t, []terse.Token{0}, prompt[3:4])
}

func TestWrongEventsAreBugs(t *testing.T) {
	f := func(want string, events ...Event) {
		t.Helper()
		s := New(Config{Cache: testCache(t, "f16", 20, 0), MaxContext: 100})
		s.Step([]Event{Add{ID: "a", Prompt: []terse.Token{1}, MaxTokens: 5}}, time.Time{})
		s.Step([]Event{&Sampled{ID: "a", Token: 1}}, time.Time{})
		require.PanicsWithValue(t, want, func() { s.Step(events, time.Time{}) })
	}
	f(`BUG: a token for "a", which has no row to sample`, &Sampled{ID: "a"}, &Sampled{ID: "a"})
	f(`BUG: KV for "a", which has no reserved pages`, KVReady{ID: "a"})
	f(`BUG: event <nil>`, nil)
	require.Panics(t, func() { New(Config{Cache: testCache(t, "f16", 20, 0)}) })
	require.Panics(t, func() { New(Config{MaxContext: 10}) })
}

// An engine may take longer than a step to sample: the sequence has no row until
// then, and nobody takes its pages.
func TestSequenceWaitsForItsToken(t *testing.T) {
	s := New(Config{Cache: testCache(t, "f16", 20, 0), MaxContext: 100})
	s.Step([]Event{Add{ID: "a", Prompt: []terse.Token{1, 2}, MaxTokens: 5}}, time.Time{})
	require.Empty(t, s.Step(nil, time.Time{}).Rows)
	plan := s.Step([]Event{&Sampled{ID: "a", Token: 9}}, time.Time{})
	require.Len(t, plan.Rows, 1)
	require.Equal(t, 2, plan.Rows[0].From)
}

// Adding and removing thousands of requests leaves nothing behind.
func TestNothingIsLeftBehind(t *testing.T) {
	c := testCache(t, "hq", 30, 30)
	s := New(Config{Cache: c, MaxContext: 100, MaxWaiting: 5})
	for i := range 2000 {
		id := ID(fmt.Sprint(i))
		plan := s.Step([]Event{Add{ID: id, Prompt: make([]terse.Token, i%50+1), MaxTokens: 3}}, time.Time{})
		require.NoError(t, s.Check())
		require.NotEmpty(t, plan.Rows)
		s.Step([]Event{Cancel{ID: id}}, time.Time{})
		require.True(t, s.Idle())
	}
	require.Zero(t, c.Stats().Used)
	require.NoError(t, c.Check())
}

// BenchmarkStep is a step of 256 decoding sequences of 4,096 tokens.
func BenchmarkStep(b *testing.B) {
	f := quant.Format{Family: quant.FamilyHQ, PageTokens: 64, Sinks: 64, Recent: 128}
	c, err := kvcache.New(&quant.Geometry{Format: f, Layers: 1, KVHeads: 1, HeadDim: 16, HeadBytes: 80}, 1<<40)
	require.NoError(b, err)
	s := New(Config{Cache: c, MaxSeqs: 256, StepTokens: 8192, MaxContext: 1 << 40})
	var events []Event
	for i := range 256 {
		events = append(events, Add{ID: ID(fmt.Sprint(i)), Prompt: make([]terse.Token, 4096), MaxTokens: 1 << 20})
		events[i].(Add).Prompt[0] = terse.Token(i)
	}
	plan := s.Step(events, time.Time{})
	answer := func() {
		events = events[:0]
		for _, w := range plan.Rows {
			if w.Sample {
				events = append(events, &Sampled{ID: w.ID, Token: 1})
			}
		}
	}
	for len(plan.Rows) < 256 || len(plan.Rows[255].Tokens) > 1 {
		answer()
		plan = s.Step(events, time.Time{})
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		answer()
		b.StartTimer()
		plan = s.Step(events, time.Time{})
	}
}
