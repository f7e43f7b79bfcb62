package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
)

// client speaks the OpenAI API as plainly as can be.
type client struct {
	t    *testing.T
	url  string
	http *http.Client
}

func newClient(t *testing.T, url, ns string) *client {
	transport := &http.Transport{DialContext: dialer(ns), DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{t: t, url: url, http: &http.Client{Transport: transport, Timeout: 5 * patience}}
}

// question is the body of a completion request.
type question struct {
	Prompt    []terse.Token `json:"prompt"`
	MaxTokens int           `json:"max_tokens"`
	Logprobs  *int          `json:"logprobs,omitempty"`
	IgnoreEOS bool          `json:"ignore_eos"`
	Stream    bool          `json:"stream"`
	// Temperature has no omitempty: 0, greedy, is what most tests want.
	Temperature float64 `json:"temperature"`
	Seed        int     `json:"seed,omitempty"`
	Repetition  float64 `json:"repetition_penalty,omitempty"`
}

// greedy asks for the most likely n tokens, with their log-probabilities.
func greedy(prompt []terse.Token, n int) question {
	top := 1
	return question{Prompt: prompt, MaxTokens: n, Logprobs: &top, IgnoreEOS: true}
}

// answer is what came back.
type answer struct {
	status int
	body   string
	fault  fault // of an error answer

	Choices []struct {
		Text     string `json:"text"`
		Finish   string `json:"finish_reason"`
		Logprobs struct {
			Tokens   []string  `json:"tokens"`
			Logprobs []float64 `json:"token_logprobs"`
		} `json:"logprobs"`
	} `json:"choices"`
	Usage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Details    struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
	timing timing
}

// fault is OpenAI's error object.
type fault struct {
	Message string `json:"message"`
	Type    string `json:"type"`
	Code    string `json:"code"`
}

// timing is the x-terse-timing header.
type timing struct {
	KVBytes    int64  `json:"kv_bytes"`
	KVHeld     int64  `json:"kv_bytes_held"`
	KVBytesF16 int64  `json:"kv_bytes_f16"`
	Route      string `json:"route"`
	Prefill    string `json:"prefill_worker"`
	Decode     string `json:"decode_worker"`
	Retries    int    `json:"retries"`

	Prefilling float64 `json:"prefill_ms"`
	Transfer   float64 `json:"transfer_ms"` // not hidden behind prefill
	KVExposed  int64   `json:"kv_bytes_exposed"`
}

func (t timing) share() float64 { return float64(t.KVBytes) / float64(t.KVBytesF16) }

// post sends a body and returns the answer's head; the caller closes its body.
func (c *client) post(ctx context.Context, path string, body any) (*http.Response, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	return c.http.Do(r)
}

// try asks and returns whatever comes, an error answer included.
func (c *client) try(ctx context.Context, q question) (answer, error) {
	res, err := c.post(ctx, "/v1/completions", q)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	return readAnswer(res)
}

func readAnswer(res *http.Response) (answer, error) {
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: res.StatusCode, body: string(data)}
	if a.status != http.StatusOK {
		var e struct{ Error fault }
		err := json.Unmarshal(data, &e)
		a.fault = e.Error
		return a, err
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, err
	}
	return a, json.Unmarshal([]byte(res.Header.Get("x-terse-timing")), &a.timing)
}

// ask wants a good answer.
func (c *client) ask(q question) answer {
	c.t.Helper()
	a, err := c.try(c.t.Context(), q)
	if err != nil {
		c.t.Fatalf("cannot ask %s: %v", c.url, err)
	}
	if a.status != http.StatusOK {
		c.t.Fatalf("status %d: %s", a.status, a.body)
	}
	if len(a.Choices) != 1 || a.Usage.Prompt != len(q.Prompt) || a.Usage.Completion != q.MaxTokens {
		c.t.Fatalf("asked for %d tokens after %d, got %s", q.MaxTokens, len(q.Prompt), a.body)
	}
	return a
}

// asking is a question in the background.
type asking struct {
	c    *client
	done chan struct{}
	a    answer
	err  error
}

func (c *client) begin(ctx context.Context, q question) *asking {
	b := &asking{c: c, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		b.a, b.err = c.try(ctx, q)
	}()
	return b
}

func (b *asking) wait() answer {
	b.c.t.Helper()
	<-b.done
	if b.err != nil {
		b.c.t.Fatalf("cannot ask %s: %v", b.c.url, b.err)
	}
	return b.a
}

// stream is a streamed answer.
type stream struct {
	res    *http.Response
	lines  *bufio.Scanner
	text   strings.Builder
	chunks int
}

func (c *client) stream(ctx context.Context, q question) (*stream, error) {
	q.Stream, q.Logprobs = true, nil
	res, err := c.post(ctx, "/v1/completions", q)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return nil, fmt.Errorf("status %d: %s", res.StatusCode, b)
	}
	return &stream{res: res, lines: bufio.NewScanner(res.Body)}, nil
}

func (s *stream) close() { s.res.Body.Close() }

// streamFault is an error event in a stream.
type streamFault struct{ fault }

func (f *streamFault) Error() string { return f.Code + ": " + f.Message }

// next reads a chunk. It returns io.EOF after [DONE], io.ErrUnexpectedEOF for a
// stream that ends without, and a *streamFault for an error event.
func (s *stream) next() error {
	for s.lines.Scan() {
		data, ok := strings.CutPrefix(s.lines.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			return io.EOF
		}
		var chunk struct {
			Error   *fault
			Choices []struct{ Text string }
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return fmt.Errorf("chunk %q: %w", data, err)
		}
		if chunk.Error != nil {
			return &streamFault{*chunk.Error}
		}
		for _, choice := range chunk.Choices {
			s.text.WriteString(choice.Text)
		}
		s.chunks++
		return nil
	}
	if err := s.lines.Err(); err != nil {
		return err
	}
	return io.ErrUnexpectedEOF
}

// rest reads to the end; nil is a whole answer.
func (s *stream) rest() error {
	for {
		if err := s.next(); errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// get fetches a page.
func (c *client) get(path string) (int, string, error) {
	res, err := c.http.Get(c.url + path)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

func (c *client) awaitReady() {
	c.t.Helper()
	var status int
	var body string
	var err error
	if !poll(func() bool {
		status, body, err = c.get("/readyz")
		return err == nil && status == http.StatusOK
	}) {
		c.t.Fatalf("%s is never ready: %d %s %v", c.url, status, body, err)
	}
}

// metric is the value of a figure without labels of its own.
func (c *client) metric(name string) float64 {
	c.t.Helper()
	_, page, err := c.get("/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `\{[^}]*\} (\S+)$`).FindStringSubmatch(page)
	if m == nil {
		c.t.Fatalf("/metrics has no %s", name)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// awaitFree waits until no request runs and no KV is held.
func (c *client) awaitFree() {
	c.t.Helper()
	figures := []string{"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"}
	var left string
	if !poll(func() bool {
		left = ""
		for _, name := range figures {
			if v := c.metric(name); v != 0 {
				left += fmt.Sprintf(" %s=%v", name, v)
			}
		}
		return left == ""
	}) {
		c.t.Errorf("never free:%s", left)
	}
}

// same compares greedy answers token by token.
func same(t *testing.T, what string, got, want answer) {
	t.Helper()
	g, w := got.Choices[0], want.Choices[0]
	for i, token := range w.Logprobs.Tokens {
		if i >= len(g.Logprobs.Tokens) || g.Logprobs.Tokens[i] != token {
			t.Errorf("%s: token %d differs:\n%q, want\n%q", what, i, g.Logprobs.Tokens, w.Logprobs.Tokens)
			return
		}
	}
	if g.Text != w.Text || g.Finish != w.Finish {
		t.Errorf("%s: %q (%s), want %q (%s)", what, g.Text, g.Finish, w.Text, w.Finish)
	}
	for i, l := range w.Logprobs.Logprobs {
		if l != g.Logprobs.Logprobs[i] {
			t.Logf("%s: log-probability %d is %v, was %v", what, i, g.Logprobs.Logprobs[i], l)
			return
		}
	}
}
