package openai

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	client "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// question is a chat that every test asks greedily, so that answers repeat.
func question(model string) client.ChatCompletionNewParams {
	return client.ChatCompletionNewParams{
		Model: model, Temperature: client.Float(0), MaxCompletionTokens: client.Int(12),
		Messages: []client.ChatCompletionMessageParamUnion{
			client.SystemMessage("You tell stories."),
			client.UserMessage("Tell me a story about Lily."),
		},
	}
}

func text(model string) client.CompletionNewParams {
	return client.CompletionNewParams{
		Model: client.CompletionNewParamsModel(model), Temperature: client.Float(0), MaxTokens: client.Int(12),
		Prompt: client.CompletionNewParamsPromptUnion{OfString: client.String("Once upon a time")},
	}
}

func TestModels(t *testing.T) {
	c, model := connect(t)
	got, err := c.Models.Get(t.Context(), model)
	if err != nil || got.ID != model || got.Object != "model" {
		t.Errorf("model %+v, %v", got, err)
	}
}

func TestChat(t *testing.T) {
	c, model := connect(t)
	var raw *http.Response
	got, err := c.Chat.Completions.New(t.Context(), question(model), option.WithResponseInto(&raw))
	if err != nil {
		t.Fatal(err)
	}
	u := got.Usage
	if u.PromptTokens < 5 || u.CompletionTokens < 1 || u.CompletionTokens > 12 || u.TotalTokens != u.PromptTokens+u.CompletionTokens {
		t.Errorf("usage %s", u.RawJSON())
	}
	if len(got.Choices) != 1 || got.Choices[0].Message.Role != "assistant" || got.Choices[0].Message.Content == "" || got.Choices[0].FinishReason == "" {
		t.Errorf("answer %s", got.RawJSON())
	}
	if got.Model != model || !strings.HasPrefix(got.ID, "chatcmpl-") || got.Object != "chat.completion" || got.Created == 0 {
		t.Errorf("answer %s", got.RawJSON())
	}
	var timing map[string]any
	if err := json.Unmarshal([]byte(raw.Header.Get("x-terse-timing")), &timing); err != nil || timing["jct_ms"].(float64) <= 0 {
		t.Errorf("x-terse-timing %q: %v", raw.Header.Get("x-terse-timing"), err)
	}
}

func TestChatStream(t *testing.T) {
	c, model := connect(t)
	whole, err := c.Chat.Completions.New(t.Context(), question(model))
	if err != nil {
		t.Fatal(err)
	}
	params := question(model)
	params.StreamOptions.IncludeUsage = client.Bool(true)
	stream := c.Chat.Completions.NewStreaming(t.Context(), params)
	var acc client.ChatCompletionAccumulator
	var last client.ChatCompletionChunk
	for stream.Next() {
		last = stream.Current()
		if !acc.AddChunk(last) {
			t.Fatalf("the client cannot add the chunk %s", last.RawJSON())
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if len(acc.Choices) != 1 || acc.Choices[0].Message.Content != whole.Choices[0].Message.Content || acc.Choices[0].FinishReason != whole.Choices[0].FinishReason {
		t.Errorf("streamed %+v,\nplain %s", acc.Choices, whole.RawJSON())
	}
	if acc.Usage.PromptTokens != whole.Usage.PromptTokens || acc.Usage.CompletionTokens != whole.Usage.CompletionTokens {
		t.Errorf("usage streamed %+v, plain %+v", acc.Usage, whole.Usage)
	}
	if len(last.Choices) != 0 || !last.JSON.Usage.Valid() || !strings.Contains(last.RawJSON(), `"terse":{"jct_ms":`) {
		t.Errorf("the last chunk is %s", last.RawJSON())
	}
}

func TestChatChoices(t *testing.T) {
	c, model := connect(t)
	params := question(model)
	params.N, params.Seed, params.Temperature = client.Int(2), client.Int(7), client.Float(0.8)
	first, err := c.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Choices) != 2 || len(again.Choices) != 2 {
		t.Fatalf("%d and %d choices", len(first.Choices), len(again.Choices))
	}
	for i := range first.Choices {
		if first.Choices[i].Message.Content != again.Choices[i].Message.Content {
			t.Errorf("choice %d with a seed: %q, then %q", i, first.Choices[i].Message.Content, again.Choices[i].Message.Content)
		}
	}
}

func TestChatLogprobs(t *testing.T) {
	c, model := connect(t)
	params := question(model)
	params.Logprobs, params.TopLogprobs = client.Bool(true), client.Int(3)
	got, err := c.Chat.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	var spelled []byte
	for _, token := range got.Choices[0].Logprobs.Content {
		if token.Logprob > 0 || len(token.TopLogprobs) != 3 || token.TopLogprobs[0].Logprob < token.TopLogprobs[2].Logprob {
			t.Errorf("token %s", token.RawJSON())
		}
		for _, b := range token.Bytes {
			spelled = append(spelled, byte(b))
		}
	}
	if string(spelled) != got.Choices[0].Message.Content {
		t.Errorf("the tokens spell %q, the content is %q", spelled, got.Choices[0].Message.Content)
	}
}

func TestStop(t *testing.T) {
	c, model := connect(t)
	whole, err := c.Completions.New(t.Context(), text(model))
	if err != nil {
		t.Fatal(err)
	}
	full := whole.Choices[0].Text
	runes := []rune(full)
	if len(runes) < 8 {
		t.Skipf("the answer %q is too short to stop in", full)
	}
	stop := string(runes[4:7]) // wherever tokens end
	params := text(model)
	params.Stop = client.CompletionNewParamsStopUnion{OfString: client.String(stop)}
	got, err := c.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := strings.Cut(full, stop)
	if got.Choices[0].Text != want || got.Choices[0].FinishReason != "stop" {
		t.Errorf("stopped at %q: %q (%s), want %q", stop, got.Choices[0].Text, got.Choices[0].FinishReason, want)
	}
}

func TestCompletionStream(t *testing.T) {
	c, model := connect(t)
	whole, err := c.Completions.New(t.Context(), text(model))
	if err != nil {
		t.Fatal(err)
	}
	params := text(model)
	params.StreamOptions.IncludeUsage = client.Bool(true)
	stream := c.Completions.NewStreaming(t.Context(), params)
	var streamed strings.Builder
	var usage client.CompletionUsage
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			streamed.WriteString(choice.Text)
		}
		usage = stream.Current().Usage
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if streamed.String() != whole.Choices[0].Text || usage.TotalTokens != whole.Usage.TotalTokens {
		t.Errorf("streamed %q (%d tokens), plain %q (%d tokens)", streamed.String(), usage.TotalTokens, whole.Choices[0].Text, whole.Usage.TotalTokens)
	}
}

func TestEchoScoresThePrompt(t *testing.T) {
	c, model := connect(t)
	params := text(model)
	params.Echo, params.Logprobs, params.MaxTokens = client.Bool(true), client.Int(2), client.Int(0)
	got, err := c.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	if got.Choices[0].Text != "Once upon a time" || got.Usage.CompletionTokens != 0 {
		t.Errorf("answer %s", got.RawJSON())
	}
	// The client leaves the null of the first token out of its lists.
	var l struct {
		Tokens        []string             `json:"tokens"`
		TokenLogprobs []*float64           `json:"token_logprobs"`
		TopLogprobs   []map[string]float64 `json:"top_logprobs"`
		TextOffset    []int                `json:"text_offset"`
	}
	raw := got.Choices[0].Logprobs.RawJSON()
	if err := json.Unmarshal([]byte(raw), &l); err != nil {
		t.Fatal(err)
	}
	n := len(l.Tokens)
	if int64(n) != got.Usage.PromptTokens || len(l.TokenLogprobs) != n || len(l.TopLogprobs) != n || len(l.TextOffset) != n {
		t.Fatalf("logprobs %s", raw)
	}
	if l.TokenLogprobs[0] != nil || l.TopLogprobs[0] != nil {
		t.Errorf("the first token has a log-probability: %s", raw)
	}
	for i := 1; i < n; i++ {
		if *l.TokenLogprobs[i] > 0 || len(l.TopLogprobs[i]) < 2 {
			t.Errorf("token %d: %v, top %v", i, *l.TokenLogprobs[i], l.TopLogprobs[i])
		}
	}
}

func TestTokenPrompts(t *testing.T) {
	c, model := connect(t)
	params := text(model)
	params.Prompt = client.CompletionNewParamsPromptUnion{OfArrayOfTokenArrays: [][]int64{{300, 301, 302}, {303, 304}}}
	got, err := c.Completions.New(t.Context(), params)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 2 || got.Choices[1].Index != 1 || got.Usage.PromptTokens != 5 {
		t.Errorf("answer %s", got.RawJSON())
	}
}

func TestErrors(t *testing.T) {
	c, model := connect(t)
	f := func(change func(*client.ChatCompletionNewParams), status int, param, code string) {
		t.Helper()
		params := question(model)
		change(&params)
		_, err := c.Chat.Completions.New(t.Context(), params)
		var api *client.Error
		if !errors.As(err, &api) {
			t.Fatalf("the error is %T: %v", err, err)
		}
		if api.StatusCode != status || api.Param != param || api.Code != code || api.Type != "invalid_request_error" || api.Message == "" {
			t.Errorf("status %d, error %s; want %d, param %q, code %q", api.StatusCode, api.RawJSON(), status, param, code)
		}
	}
	f(func(p *client.ChatCompletionNewParams) { p.Model = "no-such-model" }, 404, "model", "model_not_found")
	f(func(p *client.ChatCompletionNewParams) { p.MaxCompletionTokens = client.Int(-1) }, 400, "max_completion_tokens", "invalid_value")
	f(func(p *client.ChatCompletionNewParams) { p.Temperature = client.Float(3) }, 400, "temperature", "invalid_value")
	f(func(p *client.ChatCompletionNewParams) {
		p.Messages = []client.ChatCompletionMessageParamUnion{client.ToolMessage("x", "id")}
	}, 400, "messages[0].tool_call_id", "unsupported_parameter")
	f(func(p *client.ChatCompletionNewParams) {
		p.ResponseFormat.OfJSONObject = &client.ResponseFormatJSONObjectParam{}
	}, 400, "response_format", "unsupported_parameter")
	f(func(p *client.ChatCompletionNewParams) { p.MaxCompletionTokens = client.Int(1 << 30) }, 400, "", "context_length_exceeded")
}

func TestWrongKey(t *testing.T) {
	opts, real := dial(t)
	if real && *serverKey == "" {
		t.Skip("the server has no key")
	}
	c := client.NewClient(append(opts, option.WithAPIKey("wrong"))...)
	_, err := c.Models.List(t.Context())
	var api *client.Error
	if !errors.As(err, &api) || api.StatusCode != 401 || api.Code != "invalid_api_key" {
		t.Errorf("error %v", err)
	}
}

func TestCancel(t *testing.T) {
	c, model := connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	params := question(model)
	params.MaxCompletionTokens = client.Int(1000)
	stream := c.Chat.Completions.NewStreaming(ctx, params)
	if !stream.Next() {
		t.Fatalf("no chunk: %v", stream.Err())
	}
	cancel()
	for stream.Next() {
	}
	_ = stream.Close()
	// The server is free for the next.
	if _, err := c.Chat.Completions.New(t.Context(), question(model)); err != nil {
		t.Errorf("after a cancelled request: %v", err)
	}
}
