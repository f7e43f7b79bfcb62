package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
)

func TestChatAnswer(t *testing.T) {
	s := newTestServer(t).fixed()
	w := s.post("/v1/chat/completions", `{"model":"alias","messages":[{"role":"user","content":"Hi"}]}`)
	want := `{"id":"chatcmpl-1","object":"chat.completion","created":1750000000,"model":"alias",` +
		`"choices":[{"index":0,"message":{"role":"assistant","content":"Hello there, world.","refusal":null},"logprobs":null,"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4}}}` + "\n"
	if got := w.Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("content type %q", got)
	}
	req := s.fake.last()
	if want := encode(t, "<|user|>Hi<|end|><|assistant|>"); !slices.Equal(req.Prompt, want) {
		t.Errorf("prompt %v, want %v", req.Prompt, want)
	}
	if req.MaxTokens != 512-len(req.Prompt) {
		t.Errorf("MaxTokens %d: the default must be the rest of the context", req.MaxTokens)
	}
	if !slices.Equal(req.StopTokens, []terse.Token{tokEnd, 0}) || req.ID != "chatcmpl-1-0" {
		t.Errorf("stop tokens %v, id %q", req.StopTokens, req.ID)
	}
}

func TestChatRolesAndParts(t *testing.T) {
	s := newTestServer(t)
	f := func(messages, want string) {
		t.Helper()
		s.ok(t, "/v1/chat/completions", `{"messages":`+messages+`}`, &struct{}{})
		if got := s.fake.last().Prompt; !slices.Equal(got, encode(t, want)) {
			t.Errorf("messages %s: prompt %q, want %q", messages, s.fake.tok.Decode(got, false), want)
		}
	}
	f(`[{"role":"developer","content":"Be brief."},{"role":"user","content":"Hi","name":"ann"}]`,
		"<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>")
	f(`[{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]}]`,
		"<|user|>one\ntwo<|end|><|assistant|>")
	f(`[{"role":"user","content":"a"},{"role":"assistant","content":"b","refusal":null,"tool_calls":[]},{"role":"user","content":"c"}]`,
		"<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>")
	f(`[{"role":"user","content":""}]`, "<|user|><|end|><|assistant|>")
	s.refuses(t, "/v1/chat/completions", `{"messages":[{"role":"user","content":"a"},{"role":"system","content":"b"}]}`,
		400, "messages", "invalid_value", "a system message must be the first, not b")
}

func TestSamplingFields(t *testing.T) {
	s := newTestServer(t)
	f := func(fields string, want terse.Sampling) {
		t.Helper()
		s.ok(t, "/v1/chat/completions", `{"seed":7,"messages":[{"role":"user","content":"Hi"}]`+fields+`}`, &struct{}{})
		got := s.fake.last().Sampling
		gotBias, wantBias := got.LogitBias, want.LogitBias
		got.LogitBias, want.LogitBias = nil, nil
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if string(a) != string(b) || len(gotBias) != len(wantBias) {
			t.Errorf("%s:\ngot  %s %v\nwant %s %v", fields, a, gotBias, b, wantBias)
		}
		for k, v := range wantBias {
			if gotBias[k] != v {
				t.Errorf("%s: bias of %d is %v, want %v", fields, k, gotBias[k], v)
			}
		}
	}
	base := terse.Sampling{Temperature: 1, TopP: 1, RepetitionPenalty: 1, Seed: 7, Logprobs: -1, PromptLogprobs: -1}
	with := func(change func(*terse.Sampling)) terse.Sampling {
		c := base
		change(&c)
		return c
	}
	f("", base)
	f(`,"temperature":null,"top_p":null,"stop":null,"n":null,"max_tokens":null`, base)
	f(`,"temperature":0`, with(func(s *terse.Sampling) { s.Temperature = 0 }))
	f(`,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05`, with(func(s *terse.Sampling) {
		s.Temperature, s.TopP, s.TopK, s.MinP = 0.5, 0.9, 40, 0.05
	}))
	f(`,"top_k":-1`, base)
	f(`,"top_p":0`, with(func(s *terse.Sampling) { s.TopP = 1e-45 }))
	f(`,"repetition_penalty":1.1,"presence_penalty":-2,"frequency_penalty":2`, with(func(s *terse.Sampling) {
		s.RepetitionPenalty, s.PresencePenalty, s.FrequencyPenalty = 1.1, -2, 2
	}))
	f(`,"logit_bias":{"5":-100,"8191":1.5}`, with(func(s *terse.Sampling) { s.LogitBias = map[terse.Token]float32{5: -100, 8191: 1.5} }))
	f(`,"logprobs":true`, with(func(s *terse.Sampling) { s.Logprobs = 0 }))
	f(`,"logprobs":true,"top_logprobs":20`, with(func(s *terse.Sampling) { s.Logprobs = 20 }))
	f(`,"seed":-1`, with(func(s *terse.Sampling) { s.Seed = 1<<64 - 1 }))
	f(`,"user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto","tools":[],"tool_choice":"none","response_format":{ "type": "text" },"modalities":["text"],"parallel_tool_calls":true`, base)
}

func TestSeedsDifferWithoutOne(t *testing.T) {
	s := newTestServer(t)
	body := `{"messages":[{"role":"user","content":"Hi"}]}`
	s.post("/v1/chat/completions", body)
	first := s.fake.last().Sampling.Seed
	s.post("/v1/chat/completions", body)
	if second := s.fake.last().Sampling.Seed; first == second {
		t.Errorf("two requests without a seed both got %d", first)
	}
}

func TestStopTokenFields(t *testing.T) {
	s := newTestServer(t)
	f := func(fields string, want ...terse.Token) {
		t.Helper()
		s.ok(t, "/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}]`+fields+`}`, &struct{}{})
		if got := s.fake.last().StopTokens; !slices.Equal(got, want) {
			t.Errorf("%s: stop tokens %v, want %v", fields, got, want)
		}
	}
	f("", tokEnd, 0)
	f(`,"stop_token_ids":[9]`, tokEnd, 0, 9)
	f(`,"ignore_eos":true`)
	f(`,"ignore_eos":true,"stop_token_ids":[9]`, 9)
}

func TestChatLimits(t *testing.T) {
	s := newTestServer(t)
	f := func(fields string, want int) {
		t.Helper()
		s.ok(t, "/v1/chat/completions", `{"messages":[{"role":"user","content":"Hi"}]`+fields+`}`, &struct{}{})
		if got := s.fake.last().MaxTokens; got != want {
			t.Errorf("%s: MaxTokens %d, want %d", fields, got, want)
		}
	}
	f(`,"max_tokens":3`, 3)
	f(`,"max_completion_tokens":4`, 4)
	f(`,"max_completion_tokens":4,"max_tokens":4`, 4)
	f(`,"max_tokens":507`, 507)
}

func TestChoices(t *testing.T) {
	s := newTestServer(t)
	var out struct {
		Choices []struct {
			Index   int
			Message struct{ Content string }
		}
		Usage usageObject
	}
	s.ok(t, "/v1/chat/completions", `{"n":3,"seed":40,"messages":[{"role":"user","content":"Hi"}]}`, &out)
	seeds := map[uint64]bool{}
	for _, r := range s.fake.got {
		seeds[r.Sampling.Seed] = true
	}
	if len(out.Choices) != 3 || !seeds[40] || !seeds[41] || !seeds[42] {
		t.Errorf("%d choices, seeds %v", len(out.Choices), seeds)
	}
	for i, c := range out.Choices {
		if c.Index != i || c.Message.Content != "Hello there, world." {
			t.Errorf("choice %d: %+v", i, c)
		}
	}
	if out.Usage.PromptTokens != 5 || out.Usage.CompletionTokens != 18 || out.Usage.PromptTokensDetails.CachedTokens != 4 {
		t.Errorf("usage %+v: the prompt counts once, the answers each", out.Usage)
	}
	ids := map[string]bool{}
	for _, r := range s.fake.got {
		ids[r.ID] = true
	}
	if len(ids) != 3 {
		t.Errorf("request ids %v: the choices need their own", ids)
	}
}

func TestChatLogprobs(t *testing.T) {
	s := newTestServer(t)
	s.fake.reply = "Hello 🐢"
	type token struct {
		Token   string
		Logprob float32
		Bytes   []int
	}
	var out struct {
		Choices []struct {
			Message  struct{ Content string }
			Logprobs struct {
				Content []struct {
					token
					TopLogprobs []token `json:"top_logprobs"`
				}
			}
		}
	}
	s.ok(t, "/v1/chat/completions", `{"logprobs":true,"top_logprobs":2,"messages":[{"role":"user","content":"Hi"}]}`, &out)
	content := out.Choices[0].Logprobs.Content
	ids := encode(t, "Hello 🐢")
	if len(content) != len(ids) {
		t.Fatalf("%d tokens, want %d: the stop token carries no text and is not listed", len(content), len(ids))
	}
	var bytes []byte
	for i, c := range content {
		if c.Logprob != -float32(ids[i])/100 || len(c.TopLogprobs) != 2 || c.TopLogprobs[0].Logprob != c.Logprob {
			t.Errorf("token %d: %+v", i, c)
		}
		for _, b := range c.Bytes {
			bytes = append(bytes, byte(b))
		}
	}
	if string(bytes) != "Hello 🐢" || out.Choices[0].Message.Content != "Hello 🐢" {
		t.Errorf("bytes spell %q, content %q", bytes, out.Choices[0].Message.Content)
	}
	last := content[len(content)-1]
	if !strings.HasPrefix(last.Token, `\x`) {
		t.Errorf("a token of broken UTF-8 is named %q, want \\x..", last.Token)
	}
}
