package gateway

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/tokenizer/chat"
)

func TestChatInProcess(t *testing.T) {
	s := newTestServer(t)
	var steps []string
	messages := []chat.Message{{Role: "user", Content: "Hi <|end|>"}}
	got, err := s.Chat(t.Context(), messages, ChatParams{Sampling: terse.Sampling{Seed: 5}, Stop: []string{" world"}},
		func(text string) { steps = append(steps, text) })
	if err != nil {
		t.Fatal(err)
	}
	if got.Text != "Hello there," || strings.Join(steps, "") != got.Text || got.Finish != terse.FinishStop {
		t.Errorf("%+v in steps %q", got, steps)
	}
	if got.Usage.PromptTokens != len(s.fake.last().Prompt) || got.Usage.CompletionTokens == 0 || got.JCT <= 0 {
		t.Errorf("usage %+v, jct %v", got.Usage, got.JCT)
	}
	if got := s.fake.last(); got.Sampling.Logprobs != -1 || got.Sampling.Seed != 5 || got.MaxTokens != 512-len(got.Prompt) || !slices.Equal(got.StopTokens, []terse.Token{tokEnd, 0}) {
		t.Errorf("request %+v", got)
	}
	if controlsIn(s.fake.last().Prompt) != 3 {
		t.Error("the content made control tokens")
	}
	if line := s.logs.request(t); line["endpoint"] != "run" || line["finish"] != "stop" {
		t.Errorf("line %v", line)
	}
	whole, err := s.Chat(t.Context(), user("Hi"), ChatParams{MaxTokens: 2}, nil)
	if err != nil || whole.Finish != terse.FinishLength || whole.Timing.KVFormat != "hq3" {
		t.Errorf("%+v, %v", whole, err)
	}
}

func TestChatInProcessErrors(t *testing.T) {
	s := newTestServer(t)
	if _, err := s.Chat(t.Context(), user(strings.Repeat("hello ", 600)), ChatParams{}, nil); err == nil || !strings.Contains(err.Error(), "the context is 512 tokens") {
		t.Errorf("too long: %v", err)
	}
	if _, err := s.Chat(t.Context(), user("Hi"), ChatParams{MaxTokens: -1}, nil); err == nil || !strings.Contains(err.Error(), "'MaxTokens' is -1") {
		t.Errorf("negative: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.fake.generate = func(ctx context.Context, _ *terse.Request, emit func(terse.Output) error) error {
		_ = emit(terse.Output{Tokens: encode(t, "Hello")})
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	got, err := s.Chat(ctx, user("Hi"), ChatParams{}, nil)
	if got.Text != "Hello" || err == nil || ctx.Err() == nil {
		t.Errorf("interrupted: %+v, %v", got, err)
	}
	none := newTestServer(t, func(o *Options) { o.Template = nil })
	if _, err := none.Chat(t.Context(), user("Hi"), ChatParams{}, nil); err == nil || !strings.Contains(err.Error(), "no chat template") {
		t.Errorf("without a template: %v", err)
	}
}
