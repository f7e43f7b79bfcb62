package openai

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
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
	serve     = flag.Bool("serve", false, "build terse, start terse serve, and test against that")
)

const scriptedKey = "test-key"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	flag.Parse()
	if *serve {
		stop, err := startReal()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer stop()
	}
	return m.Run()
}

// startReal builds the program and runs terse serve on a free port; the flags
// then name it.
func startReal() (stop func(), err error) {
	dir, err := os.MkdirTemp("", "terse-openai-")
	if err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "terse")
	build := exec.Command("go", "build", "-o", program, "./cmd/terse")
	build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot build terse: %w\n%s", err, out), os.RemoveAll(dir))
	}
	cmd := exec.Command(program, "serve", "--listen", "127.0.0.1:0", "--api-key", scriptedKey, "--kv-memory", "128MiB")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended, which Wait tells
		if err := cmd.Wait(); err != nil {
			fmt.Fprintln(os.Stderr, "terse serve:", err)
		}
		os.RemoveAll(dir)
	}
	line, err := bufio.NewReader(out).ReadString('\n') // ready, or at its end
	url := regexp.MustCompile(`http://\S+/v1`).FindString(line)
	if url == "" {
		stop()
		return nil, fmt.Errorf("terse serve does not say where it serves: %q, %v", line, err)
	}
	*serverURL, *serverKey = url, scriptedKey
	return stop, nil
}

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
