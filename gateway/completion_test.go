package gateway

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
)

// completion is an answer of /v1/completions as a client reads it.
type completion struct {
	Choices []struct {
		Index        int
		Text         string
		FinishReason string `json:"finish_reason"`
		Logprobs     *struct {
			Tokens        []string
			TokenLogprobs []*float32           `json:"token_logprobs"`
			TopLogprobs   []map[string]float32 `json:"top_logprobs"`
			TextOffset    []int                `json:"text_offset"`
		}
	}
	Usage usageObject
}

func TestCompletionPrompts(t *testing.T) {
	s := newTestServer(t)
	f := func(prompt string, want ...[]terse.Token) {
		t.Helper()
		s.fake.got = nil
		var out completion
		s.ok(t, completionPath, `{"prompt":`+prompt+`}`, &out)
		if len(out.Choices) != len(want) || len(s.fake.got) != len(want) {
			t.Fatalf("%s: %d choices, %d requests, want %d", prompt, len(out.Choices), len(s.fake.got), len(want))
		}
		total := 0
		for i, w := range want {
			total += len(w)
			if !slices.ContainsFunc(s.fake.got, func(r terse.Request) bool { return slices.Equal(r.Prompt, w) }) {
				t.Errorf("%s: no request has the prompt %v", prompt, w)
			}
			if out.Choices[i].Index != i || out.Choices[i].Text != "Hello there, world." {
				t.Errorf("%s: choice %d is %+v", prompt, i, out.Choices[i])
			}
		}
		if out.Usage.PromptTokens != total {
			t.Errorf("%s: usage %+v, want %d prompt tokens", prompt, out.Usage, total)
		}
	}
	f(`"Once upon"`, encode(t, "Once upon"))
	f(` "<|user|>Hi<|end|>"`, encode(t, "<|user|>Hi<|end|>")) // a raw prompt may write control tokens
	f(`["Once","upon"]`, encode(t, "Once"), encode(t, "upon"))
	f(`[300,301,302]`, []terse.Token{300, 301, 302})
	f(`[ [300],[301,302] ]`, []terse.Token{300}, []terse.Token{301, 302})
	f(`["Once",[301,302]]`, encode(t, "Once"), []terse.Token{301, 302})
}

func TestCompletionDefaults(t *testing.T) {
	s := newTestServer(t)
	s.fake.reply = strings.Repeat("hello ", 30)
	var out completion
	s.ok(t, completionPath, `{"prompt":"Hi"}`, &out)
	if got := s.fake.last().MaxTokens; got != 16 {
		t.Errorf("MaxTokens %d, OpenAI's default is 16", got)
	}
	if out.Choices[0].FinishReason != "length" || out.Choices[0].Logprobs != nil {
		t.Errorf("choice %+v", out.Choices[0])
	}
	s.ok(t, completionPath, `{"prompt":"Hi","best_of":2,"n":2,"suffix":null,"echo":false}`, &out)
}

func TestCompletionLogprobs(t *testing.T) {
	s := newTestServer(t)
	s.fake.reply = "a 🐢 b"
	var out completion
	s.ok(t, completionPath, `{"prompt":"Hi","logprobs":2}`, &out)
	l := out.Choices[0].Logprobs
	ids := append(encode(t, s.fake.reply), tokEnd) // text completions list the stop token too
	if len(l.Tokens) != len(ids) || len(l.TokenLogprobs) != len(ids) || len(l.TopLogprobs) != len(ids) || len(l.TextOffset) != len(ids) {
		t.Fatalf("%d tokens, want %d: %+v", len(l.Tokens), len(ids), l)
	}
	if last := l.Tokens[len(ids)-1]; last != "<|end|>" {
		t.Errorf("the last token is %q", last)
	}
	text := []rune(out.Choices[0].Text)
	for i, id := range ids {
		own, ok := l.TopLogprobs[i][l.Tokens[i]]
		if !ok || own != *l.TokenLogprobs[i] || own != -float32(id)/100 {
			t.Errorf("token %d: %v, top %v", i, *l.TokenLogprobs[i], l.TopLogprobs[i])
		}
		broken := strings.HasPrefix(l.Tokens[i], `bytes:\x`)
		if id == tokEnd || broken {
			continue
		}
		if at := l.TextOffset[i]; !strings.HasPrefix(string(text[at:]), l.Tokens[i]) {
			t.Errorf("token %d %q is not at offset %d of %q", i, l.Tokens[i], at, string(text))
		}
	}
	if !slices.ContainsFunc(l.Tokens, func(s string) bool { return strings.HasPrefix(s, `bytes:\x`) }) {
		t.Errorf("tokens %q: none has broken UTF-8, the test proves less than it should", l.Tokens)
	}
	var bare completion
	s.ok(t, completionPath, `{"prompt":"Hi","logprobs":0}`, &bare)
	if top := bare.Choices[0].Logprobs.TopLogprobs[0]; len(top) != 1 {
		t.Errorf("with logprobs 0 the top is %v, want the token alone", top)
	}
}

func TestEchoScoresThePrompt(t *testing.T) {
	s := newTestServer(t)
	f := func(body string, prompt []terse.Token, text string, generated int) {
		t.Helper()
		var out completion
		s.ok(t, completionPath, body, &out)
		c := out.Choices[0]
		l := c.Logprobs
		if c.Text != text {
			t.Errorf("%s: text %q, want %q", body, c.Text, text)
		}
		if len(l.Tokens) != len(prompt)+generated || l.TokenLogprobs[0] != nil || l.TopLogprobs[0] != nil {
			t.Fatalf("%s: %d tokens, first %v: the first has no log-probability", body, len(l.Tokens), l.TokenLogprobs[0])
		}
		for i := 1; i < len(prompt); i++ {
			if *l.TokenLogprobs[i] != -float32(prompt[i])/100 {
				t.Errorf("%s: token %d has %v", body, i, *l.TokenLogprobs[i])
			}
		}
		runes := []rune(text)
		for i, tok := range l.Tokens {
			if at := l.TextOffset[i]; tok != "<|end|>" && !strings.HasPrefix(string(runes[at:]), tok) {
				t.Errorf("%s: token %d %q is not at offset %d of %q", body, i, tok, at, text)
			}
		}
	}
	prompt := encode(t, "Once upon a time")
	f(`{"prompt":"Once upon a time","echo":true,"logprobs":1,"max_tokens":0}`, prompt, "Once upon a time", 0)
	if s.fake.last().MaxTokens != 0 || s.fake.last().Sampling.PromptLogprobs != 1 {
		t.Errorf("request %+v", s.fake.last())
	}
	f(`{"prompt":"Once upon a time","echo":true,"logprobs":1,"max_tokens":1}`, prompt, "Once upon a timeHello", 1)
	f(`{"prompt":[300],"echo":true,"logprobs":1,"max_tokens":0}`, []terse.Token{300}, s.fake.tok.TokenText(300), 0)
	// lm-evaluation-harness: token prompt, one token, the last is dropped.
	s.fake.reply = ""
	f(`{"prompt":[300,301,302],"echo":true,"logprobs":1,"max_tokens":1,"temperature":0,"seed":1234}`,
		[]terse.Token{300, 301, 302}, s.fake.tok.Decode([]terse.Token{300, 301, 302}, false), 1)
}

func TestEchoWithoutScores(t *testing.T) {
	s := newTestServer(t)
	var out completion
	s.ok(t, completionPath, `{"prompt":["Say: ","Tell: "],"echo":true,"n":2}`, &out)
	for i, want := range []string{"Say: ", "Say: ", "Tell: ", "Tell: "} {
		if got := out.Choices[i].Text; got != want+"Hello there, world." {
			t.Errorf("choice %d: %q", i, got)
		}
	}
	if got := s.fake.last().Sampling.PromptLogprobs; got != -1 {
		t.Errorf("PromptLogprobs %d: nobody asked for scores", got)
	}
	body := s.post(completionPath, `{"prompt":"Say: ","echo":true,"stream":true}`).Body.String()
	if first := events(t, body)[0]; !strings.Contains(first, `"text":"Say: "`) {
		t.Errorf("the first event is %s", first)
	}
}

func TestEchoOfScoresInPieces(t *testing.T) {
	s := newTestServer(t)
	complete := true
	s.fake.generate = func(_ context.Context, req *terse.Request, emit func(terse.Output) error) error {
		for _, id := range req.Prompt[1:] {
			if err := emit(terse.Output{Prompt: []terse.Scored{fakeScore(id, 1)}}); err != nil {
				return err
			}
			if !complete {
				break
			}
		}
		return emit(terse.Output{Finish: terse.FinishLength})
	}
	var out completion
	s.ok(t, completionPath, `{"prompt":[300,301,302],"echo":true,"logprobs":1,"max_tokens":0}`, &out)
	if l := out.Choices[0].Logprobs; len(l.Tokens) != 3 || *l.TokenLogprobs[2] != -3.02 {
		t.Errorf("logprobs %+v", l)
	}
	complete = false
	s.refuses(t, completionPath, `{"prompt":[300,301,302],"echo":true,"logprobs":1,"max_tokens":0}`, 500, "", "internal_error", "1 of the prompt's 3 tokens have no score")
}
