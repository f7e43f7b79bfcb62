package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/terse-llm/terse"
)

// frames joins events as they must be on the wire.
func frames(events ...string) string {
	var b strings.Builder
	for _, e := range events {
		b.WriteString("data: " + e + "\n\n")
	}
	return b.String()
}

// timingJSON is the report of a fixed server's clock and the fake's timing.
const timingJSON = `{"jct_ms":0,"queue_ms":1.5,"prefill_ms":20,"quantise_ms":2,"transfer_ms":3,"wait_ms":1,"decode_ms":40,"attend_ms":30,` +
	`"ttft_ms":25,"transfer_total_ms":10,"pack_ms":7,"unpack_ms":6,"kv_format":"hq3","kv_bytes":1000,"kv_bytes_second":300,"kv_bytes_held":500,"kv_bytes_exposed":100,"kv_bytes_f16":4000,"route":"split","ttft_expected_ms":20,` +
	`"prefill_worker":"p0","decode_worker":"d0","planes":"apart: late otherwise, 0.4 s","top_plane_tokens":7,"adoption_ms":5,"replayed_tokens":2,"recovered_tokens":9,"retries":1}`

func TestChatStreamBytes(t *testing.T) {
	s := newTestServer(t).fixed()
	s.fake.reply = "Yes <b>."
	head := `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1750000000,"model":"terse-16m","choices":`
	choice := func(delta, finish string) string {
		return `[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}]`
	}
	body := `{"stream":true,"messages":[{"role":"user","content":"Hi"}]`
	var pieces []string
	for _, id := range encode(t, s.fake.reply) {
		pieces = append(pieces, `{"content":"`+s.fake.tok.TokenText(id)+`"}`)
	}

	stream := func(tail string) string {
		events := []string{head + choice(`{"role":"assistant","content":""}`, "null") + tail}
		for _, p := range pieces {
			events = append(events, head+choice(p, "null")+tail)
		}
		return frames(append(events, head+choice(`{}`, `"stop"`)+tail)...)
	}
	w := s.post(chatPath, body+`}`)
	if got, want := w.Body.String(), stream("}")+frames("[DONE]"); got != want {
		t.Errorf("without usage:\ngot\n%s\nwant\n%s", got, want)
	}
	if got := w.Header().Get("Content-Type"); got != "text/event-stream; charset=utf-8" {
		t.Errorf("content type %q", got)
	}

	usage := fmt.Sprintf(`{"prompt_tokens":5,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":4}}`, len(pieces)+1, len(pieces)+6)
	want := stream(`,"usage":null}`) + frames(head+`[],"usage":`+usage+`,"terse":`+timingJSON+`}`, "[DONE]")
	if got := s.post(chatPath, body+`,"stream_options":{"include_usage":true}}`).Body.String(); got != want {
		t.Errorf("with usage:\ngot\n%s\nwant\n%s", got, want)
	}
}

func TestCompletionStreamBytes(t *testing.T) {
	s := newTestServer(t).fixed()
	s.fake.reply = "Yes"
	id := encode(t, "Yes")
	if len(id) != 1 {
		t.Fatalf("the test wants a reply of one token, got %v", id)
	}
	head := `{"id":"cmpl-1","object":"text_completion","created":1750000000,"model":"terse-16m","choices":[`
	logprob := fmt.Sprint(-float32(id[0]) / 100)
	want := frames(
		head+`{"text":"Yes","index":0,"logprobs":{"tokens":["Yes"],"token_logprobs":[`+logprob+`],"top_logprobs":[{"Yes":`+logprob+`}],"text_offset":[0]},"finish_reason":null}]}`,
		head+`{"text":"","index":0,"logprobs":null,"finish_reason":"length"}]}`,
		"[DONE]")
	if got := s.post(completionPath, `{"prompt":"Hi","stream":true,"logprobs":1,"max_tokens":1}`).Body.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestStreamedChoices(t *testing.T) {
	s := newTestServer(t)
	w := s.post(completionPath, `{"prompt":["a","b"],"n":2,"stream":true,"max_tokens":30}`)
	texts, finished := map[int]string{}, map[int]string{}
	for _, data := range events(t, w.Body.String()) {
		var c struct {
			Choices []struct {
				Index        int
				Text         string
				FinishReason string `json:"finish_reason"`
			}
		}
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatal(err)
		}
		texts[c.Choices[0].Index] += c.Choices[0].Text
		finished[c.Choices[0].Index] += c.Choices[0].FinishReason
	}
	for i := range 4 {
		if texts[i] != "Hello there, world." || finished[i] != "stop" {
			t.Errorf("choice %d: %q, finish %q", i, texts[i], finished[i])
		}
	}
}

// events are the data of a good stream, without the closing [DONE].
func events(t *testing.T, body string) []string {
	t.Helper()
	body, ok := strings.CutSuffix(body, frames("[DONE]"))
	if !ok {
		t.Fatalf("the stream has no end:\n%s", body)
	}
	var out []string
	for frame := range strings.SplitSeq(strings.TrimSuffix(body, "\n\n"), "\n\n") {
		out = append(out, strings.TrimPrefix(frame, "data: "))
	}
	return out
}

// failing fails after the first tokens.
func failing(after int, err error) func(context.Context, *terse.Request, func(terse.Output) error) error {
	return func(_ context.Context, _ *terse.Request, emit func(terse.Output) error) error {
		for range after {
			if err := emit(terse.Output{Tokens: []terse.Token{300}}); err != nil {
				return err
			}
		}
		return err
	}
}

func TestErrorBeforeTheFirstToken(t *testing.T) {
	s := newTestServer(t)
	s.fake.generate = failing(0, &terse.Error{Code: terse.CodeNoWorker, Message: "no decode worker is there"})
	w := s.post(chatPath, `{"stream":true,"messages":[{"role":"user","content":"Hi"}]}`)
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	checkError(t, w, 503, "", "no_worker", "no decode worker is there")
}

func TestErrorInTheMiddle(t *testing.T) {
	s := newTestServer(t)
	s.fake.generate = failing(2, &terse.Error{Code: terse.CodeWorkerLost, Message: "worker d0 is gone"})
	w := s.post(chatPath, `{"stream":true,"messages":[{"role":"user","content":"Hi"}]}`)
	want := frames(`{"error":{"message":"worker d0 is gone","type":"service_unavailable_error","param":null,"code":"worker_lost"}}`)
	if w.Code != 200 || !strings.HasSuffix(w.Body.String(), want) {
		t.Errorf("status %d, stream\n%s\nmust end with\n%s", w.Code, w.Body, want)
	}
	line := s.logs.request(t)
	if line["error"] != "worker d0 is gone" || line["status"] != 503.0 || line["finish"] != "error" {
		t.Errorf("log line %v", line)
	}
}

func TestErrorCodes(t *testing.T) {
	s := newTestServer(t)
	f := func(err error, status int, code string, retry bool) {
		t.Helper()
		s.fake.generate = failing(0, err)
		w := s.post(chatPath, `{"messages":[{"role":"user","content":"Hi"}]}`)
		if got := w.Header().Get("Retry-After") != ""; got != retry {
			t.Errorf("%v: Retry-After %v, want %v", err, got, retry)
		}
		checkError(t, w, status, "", code, "")
	}
	typed := func(c terse.Code) error {
		return fmt.Errorf("cannot run the request: %w", &terse.Error{Code: c, Message: "x"})
	}
	f(typed(terse.CodeOverloaded), 429, "overloaded", true)
	f(typed(terse.CodeNoWorker), 503, "no_worker", true)
	f(typed(terse.CodeWorkerLost), 503, "worker_lost", true)
	f(typed(terse.CodeTransfer), 503, "kv_transfer_failed", true)
	f(typed(terse.CodeMismatch), 503, "mismatch", false)
	f(typed(terse.CodeContextLength), 400, "context_length_exceeded", false)
	f(typed(terse.CodeKVMemory), 400, "kv_memory_exceeded", false)
	f(typed(terse.CodeInvalid), 400, "invalid_request", false)
	f(typed(terse.CodeDeadline), 504, "deadline_exceeded", false)
	f(context.DeadlineExceeded, 504, "deadline_exceeded", false)
	f(typed(terse.CodeInternal), 500, "internal_error", false)
	f(errors.New("x"), 500, "internal_error", false)
	f(nil, 500, "internal_error", false) // an end without a finish reason
}

// listen serves over a real connection.
func (s *testServer) listen(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return server.URL
}

// send posts over the network.
func send(t *testing.T, ctx context.Context, url, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func TestTimingTrailerAndHeader(t *testing.T) {
	s := newTestServer(t).fixed()
	url := s.listen(t)
	resp := send(t, t.Context(), url+chatPath, `{"stream":true,"messages":[{"role":"user","content":"Hi"}]}`)
	readAll(t, resp.Body)
	if got := resp.Trailer.Get("x-terse-timing"); got != timingJSON {
		t.Errorf("trailer %q\nwant    %q", got, timingJSON)
	}
	resp = send(t, t.Context(), url+chatPath, `{"messages":[{"role":"user","content":"Hi"}]}`)
	if got := resp.Header.Get("x-terse-timing"); got != timingJSON {
		t.Errorf("header %q\nwant   %q", got, timingJSON)
	}
}

func TestEventsAreFlushed(t *testing.T) {
	s := newTestServer(t)
	more := make(chan struct{})
	s.fake.generate = func(ctx context.Context, _ *terse.Request, emit func(terse.Output) error) error {
		if err := emit(terse.Output{Tokens: []terse.Token{300}}); err != nil {
			return err
		}
		select {
		case <-more:
		case <-ctx.Done():
		}
		return emit(terse.Output{Finish: terse.FinishLength})
	}
	resp := send(t, t.Context(), s.listen(t)+completionPath, `{"stream":true,"prompt":"Hi"}`)
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	close(more) // the first event came before the second token was made
	if err != nil || !strings.HasPrefix(line, "data: {") {
		t.Errorf("first line %q, %v", line, err)
	}
	readAll(t, resp.Body)
}

func TestClientThatLeavesCancels(t *testing.T) {
	f := func(body string) {
		t.Helper()
		s := newTestServer(t)
		started, cancelled := make(chan struct{}), make(chan struct{})
		s.fake.generate = func(ctx context.Context, _ *terse.Request, emit func(terse.Output) error) error {
			_ = emit(terse.Output{Tokens: []terse.Token{300}})
			close(started)
			<-ctx.Done()
			close(cancelled)
			return ctx.Err()
		}
		url := s.listen(t)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+completionPath, strings.NewReader(body))
			req.Header.Set("Content-Type", "application/json")
			if resp, err := http.DefaultClient.Do(req); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}()
		<-started
		leave()
		<-gone
		select {
		case <-cancelled:
		case <-time.After(2 * time.Minute):
			t.Fatal("the request goes on after its client has left")
		}
		waitFor(t, func() bool { return strings.Contains(s.logs.String(), `"msg":"request"`) })
		if line := s.logs.request(t); line["status"] != 499.0 || line["finish"] != "abort" {
			t.Errorf("log line %v", line)
		}
	}
	f(`{"prompt":"Hi"}`)
	f(`{"prompt":"Hi","stream":true}`)
	f(`{"prompt":"Hi","stream":true,"n":1,"max_tokens":5}`)
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it never happens")
		}
	}
}

func TestOneFailedChoiceCancelsTheOthers(t *testing.T) {
	s := newTestServer(t)
	s.fake.generate = func(ctx context.Context, req *terse.Request, _ func(terse.Output) error) error {
		if strings.HasSuffix(req.ID, "-2") {
			return &terse.Error{Code: terse.CodeWorkerLost, Message: "lost"}
		}
		<-ctx.Done()
		return ctx.Err()
	}
	s.refuses(t, completionPath, `{"prompt":"Hi","n":4}`, 503, "", "worker_lost", "lost")
}

func TestTimeout(t *testing.T) {
	s := newTestServer(t, func(o *Options) { o.Timeout = 10 * time.Millisecond })
	s.fake.generate = func(ctx context.Context, _ *terse.Request, _ func(terse.Output) error) error {
		<-ctx.Done()
		return ctx.Err()
	}
	s.refuses(t, completionPath, `{"prompt":"Hi"}`, 504, "", "deadline_exceeded", "limit of 10ms")
}
