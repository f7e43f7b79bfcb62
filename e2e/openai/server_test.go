package openai

import (
	"context"
	"flag"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	client "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/gateway"
	"github.com/terse-llm/terse/tokenizer"
	"github.com/terse-llm/terse/tokenizer/chat"
)

var (
	serverURL = flag.String("url", "", "base URL of a real server, such as http://127.0.0.1:8080/v1; empty starts a scripted one")
	serverKey = flag.String("key", "", "its API key")
)

const scriptedKey = "test-key"

// dial returns the options of a client, and whether the server is a real one.
func dial(t *testing.T) (opts []option.RequestOption, real bool) {
	t.Helper()
	if *serverURL != "" {
		return []option.RequestOption{option.WithBaseURL(*serverURL), option.WithAPIKey(*serverKey), option.WithMaxRetries(0)}, true
	}
	server := httptest.NewServer(scripted(t).Handler())
	t.Cleanup(server.Close)
	return []option.RequestOption{option.WithBaseURL(server.URL + "/v1"), option.WithAPIKey(scriptedKey), option.WithMaxRetries(0)}, false
}

// connect returns a client and the name of the server's model.
func connect(t *testing.T) (client.Client, string) {
	t.Helper()
	opts, _ := dial(t)
	c := client.NewClient(opts...)
	models, err := c.Models.List(t.Context())
	if err != nil {
		t.Fatalf("cannot list the models: %v", err)
	}
	if len(models.Data) == 0 {
		t.Fatal("the server has no models")
	}
	return c, models.Data[0].ID
}

// scripted is a gateway over a worker that always says the same.
func scripted(t *testing.T) *gateway.Server {
	t.Helper()
	model := os.DirFS("../../internal/defaultmodel")
	tok, err := tokenizer.Load(model)
	if err != nil {
		t.Fatal(err)
	}
	template, err := chat.Parse(tok.ChatTemplate(), chat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := gateway.New(gateway.Options{
		Dispatcher: script{tok}, Tokenizer: tok, Template: template,
		Models: []string{"scripted"}, MaxContext: 2048, APIKey: scriptedKey, Created: time.Unix(1, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// script answers "one two three …" for ever, as many tokens as are wanted.
type script struct{ tok *tokenizer.Tokenizer }

func (script) Ready() error              { return nil }
func (script) Members() []cluster.Member { return nil }

func (s script) Generate(ctx context.Context, req *terse.Request, emit func(terse.Output) error) error {
	if req.Sampling.PromptLogprobs >= 0 {
		var scores []terse.Scored
		for _, t := range req.Prompt[1:] {
			scores = append(scores, scored(t, req.Sampling.PromptLogprobs))
		}
		if err := emit(terse.Output{Prompt: scores}); err != nil {
			return err
		}
	}
	words, err := s.tok.Encode(" one two three four five six seven eight", tokenizer.EncodeOptions{})
	if err != nil {
		return err
	}
	for i := range req.MaxTokens {
		t := words[i%len(words)]
		out := terse.Output{Tokens: []terse.Token{t}}
		if req.Sampling.Logprobs >= 0 {
			out.Scores = []terse.Scored{scored(t, req.Sampling.Logprobs)}
		}
		if err := emit(out); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return emit(terse.Output{
		Finish: terse.FinishLength, Timing: &terse.Timing{Prefill: time.Millisecond, KVFormat: "f16"},
		Usage: &terse.Usage{PromptTokens: len(req.Prompt), CompletionTokens: req.MaxTokens},
	})
}

func scored(t terse.Token, top int) terse.Scored {
	s := terse.Scored{Logprob: terse.Logprob{Token: t, Logprob: -0.5}}
	for i := range top {
		s.Top = append(s.Top, terse.Logprob{Token: t + terse.Token(i), Logprob: -0.5 - float32(i)})
	}
	return s
}
