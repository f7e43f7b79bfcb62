package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/terse-llm/terse"
)

func TestOptions(t *testing.T) {
	good := newTestServer(t).opts
	good.Registry = nil
	f := func(change func(*Options), want string) {
		t.Helper()
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	f(func(o *Options) { o.Dispatcher = nil }, "Dispatcher")
	f(func(o *Options) { o.Tokenizer = nil }, "Tokenizer")
	f(func(o *Options) { o.Models = nil }, "Models")
	f(func(o *Options) { o.Models = []string{""} }, "Models")
	f(func(o *Options) { o.MaxContext = 0 }, "MaxContext")
	taken := newTestServer(t).opts.Registry
	f(func(o *Options) { o.Registry = taken }, "cannot register")
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

func TestPathsAndMethods(t *testing.T) {
	s := newTestServer(t)
	f := func(method, path string, status int, code string) {
		t.Helper()
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
		checkError(t, w, status, "", code, "")
		if status == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow header", method, path)
		}
	}
	f("GET", "/", 404, "not_found")
	f("POST", "/v1/embeddings", 404, "not_found")
	f("GET", "/v1/chat/completions", 405, "method_not_allowed")
	f("DELETE", "/v1/completions", 405, "method_not_allowed")
	f("OPTIONS", "/v1/completions", 405, "method_not_allowed")
	f("POST", "/v1/models", 405, "method_not_allowed")
	f("GET", "/tokenize", 405, "method_not_allowed")
	f("POST", "/metrics", 405, "method_not_allowed")
}

func TestContentTypes(t *testing.T) {
	s := newTestServer(t)
	f := func(header, value string, status int) {
		t.Helper()
		r := httptest.NewRequest("POST", completionPath, strings.NewReader(`{"prompt":"Hi"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(header, value)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if status == 200 {
			if w.Code != 200 {
				t.Errorf("%s %q: status %d", header, value, w.Code)
			}
			return
		}
		checkError(t, w, status, "", "unsupported_media_type", "")
	}
	f("Content-Type", "application/json; charset=utf-8", 200)
	f("Content-Type", "", 415)
	f("Content-Type", "text/plain", 415)
	f("Content-Type", "application/x-www-form-urlencoded", 415)
	f("Content-Encoding", "gzip", 415)
	f("Content-Encoding", "identity", 200)
}

// countingReader is an endless body that knows how much of it was read.
type countingReader struct{ n int64 }

func (c *countingReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	c.n += int64(len(p))
	return len(p), nil
}

func TestBodyLimit(t *testing.T) {
	s := newTestServer(t)
	f := func(length int64, most int64) {
		t.Helper()
		body := &countingReader{}
		r := httptest.NewRequest("POST", chatPath, io.LimitReader(body, 100<<20))
		r.ContentLength = length
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		checkError(t, w, 413, "", "request_too_large", "limit of 16777216 bytes")
		if body.n > most {
			t.Errorf("%d bytes were read of a body that is too large", body.n)
		}
	}
	f(100<<20, 0)
	f(-1, 17<<20) // chunked: not announced
}

func TestLargeBodyOverTheNetwork(t *testing.T) {
	s := newTestServer(t)
	resp := send(t, t.Context(), s.listen(t)+chatPath, `{"messages":[{"role":"user","content":"`+strings.Repeat("a", 20<<20)+`"}]}`)
	if resp.StatusCode != 413 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestBodyThatNeverComes(t *testing.T) {
	s := newTestServer(t, func(o *Options) { o.ClientTimeout = time.Second })
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.listen(t), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{")
	answer := readAll(t, conn)
	if !strings.HasPrefix(answer, "HTTP/1.1 408 ") || !strings.Contains(answer, "did not come within 1s") {
		t.Errorf("answer %q", answer)
	}
}

func TestAPIKey(t *testing.T) {
	s := newTestServer(t, func(o *Options) { o.APIKey = "secret" })
	f := func(path, authorization string, status int) {
		t.Helper()
		r := httptest.NewRequest("GET", path, nil)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if status == 401 {
			if w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no WWW-Authenticate", path)
			}
			checkError(t, w, 401, "", "invalid_api_key", "Authorization: Bearer")
		} else if w.Code != status {
			t.Errorf("%s %q: status %d, want %d", path, authorization, w.Code, status)
		}
	}
	f("/v1/models", "Bearer secret", 200)
	f("/v1/models", "bearer secret", 200)
	f("/v1/models", "", 401)
	f("/v1/models", "Bearer wrong", 401)
	f("/v1/models", "Bearer secret2", 401)
	f("/v1/models", "Basic secret", 401)
	f("/v1/models", "secret", 401)
	f("/v1/models/x", "", 401)
	f("/healthz", "", 200)
	f("/readyz", "", 200)
	f("/metrics", "", 200)
	for _, path := range []string{chatPath, completionPath, "/tokenize", "/detokenize"} {
		if w := s.post(path, `{}`); w.Code != 401 {
			t.Errorf("POST %s without a key: status %d", path, w.Code)
		}
	}
}

func TestModels(t *testing.T) {
	s := newTestServer(t)
	model := func(id string) string {
		return `{"id":"` + id + `","object":"model","created":1700000000,"owned_by":"terse","max_model_len":512}`
	}
	if got, want := s.get("/v1/models").Body.String(), `{"object":"list","data":[`+model("terse-16m")+`,`+model("alias")+`]}`+"\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := s.get("/v1/models/alias").Body.String(); got != model("alias")+"\n" {
		t.Errorf("got %s", got)
	}
	slashed := newTestServer(t, func(o *Options) { o.Models = []string{"org/name"} })
	if w := slashed.get("/v1/models/org/name"); w.Code != 200 {
		t.Errorf("a name with a slash: status %d", w.Code)
	}
}

func TestProbes(t *testing.T) {
	s := newTestServer(t)
	f := func(path string, status int, want string) {
		t.Helper()
		if w := s.get(path); w.Code != status || w.Body.String() != want+"\n" {
			t.Errorf("%s: status %d: %s", path, w.Code, w.Body)
		}
	}
	f("/healthz", 200, `{"status":"ok"}`)
	f("/readyz", 200, `{"status":"ok"}`)
	s.fake.ready = errors.New("no decode worker")
	s.opts.Health = func() error { return errors.New("transfer is wedged") }
	f("/healthz", 503, `{"status":"unavailable","error":"transfer is wedged"}`)
	f("/readyz", 503, `{"status":"unavailable","error":"no decode worker"}`)
}

func TestTokenize(t *testing.T) {
	s := newTestServer(t)
	f := func(body string, want []terse.Token) {
		t.Helper()
		var out tokenizeAnswer
		s.ok(t, "/tokenize", body, &out)
		if out.Count != len(want) || out.MaxModelLen != 512 || len(out.Tokens) != len(want) {
			t.Errorf("%s: %+v, want %v", body, out, want)
		}
		for i := range want {
			if out.Tokens[i] != want[i] {
				t.Errorf("%s: %v, want %v", body, out.Tokens, want)
				break
			}
		}
	}
	f(`{"prompt":"Hello there"}`, encode(t, "Hello there"))
	f(`{"prompt":"<|user|>Hi"}`, encode(t, "<|user|>Hi"))
	f(`{"prompt":"","add_special_tokens":false}`, nil)
	f(`{"prompt":"`+strings.Repeat("a b ", 2000)+`"}`, encode(t, strings.Repeat("a b ", 2000))) // longer than the context
	f(`{"messages":[{"role":"user","content":"Hi"}]}`, encode(t, "<|user|>Hi<|end|><|assistant|>"))
	f(`{"messages":[{"role":"user","content":"Hi"}],"add_generation_prompt":false}`, encode(t, "<|user|>Hi<|end|>"))
	var strs tokenizeAnswer
	s.ok(t, "/tokenize", `{"prompt":"Hello there","return_token_strs":true}`, &strs)
	if strings.Join(strs.TokenStrs, "") != "Hello there" {
		t.Errorf("token strings %q", strs.TokenStrs)
	}
	s.refuses(t, "/tokenize", `{"prompt":"a","messages":[]}`, 400, "messages", "invalid_value", "not both")

	var back detokenizeAnswer
	ids, _ := json.Marshal(encode(t, "<|user|>Hello there"))
	s.ok(t, "/detokenize", `{"tokens":`+string(ids)+`}`, &back)
	if back.Prompt != "<|user|>Hello there" {
		t.Errorf("detokenized %q", back.Prompt)
	}
	s.refuses(t, "/detokenize", `{"tokens":[8192]}`, 400, "tokens", "invalid_value", "token 8192")
}

func TestOverload(t *testing.T) {
	s := newTestServer(t, func(o *Options) { o.MaxConcurrent = 1 })
	started, release := make(chan struct{}), make(chan struct{})
	s.fake.generate = func(_ context.Context, _ *terse.Request, emit func(terse.Output) error) error {
		close(started)
		<-release
		return emit(terse.Output{Finish: terse.FinishLength})
	}
	done := make(chan *httptest.ResponseRecorder)
	go func() { done <- s.post(completionPath, `{"prompt":"Hi"}`) }()
	<-started
	w := s.post(completionPath, `{"prompt":"Hi"}`)
	if w.Header().Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	checkError(t, w, 429, "", "overloaded", "1 requests are in work")
	close(release)
	if w := <-done; w.Code != 200 {
		t.Errorf("the first request: status %d", w.Code)
	}
	s.fake.generate = nil
	s.ok(t, completionPath, `{"prompt":"Hi"}`, &struct{}{}) // the place is free again
}

func TestPanics(t *testing.T) {
	s := newTestServer(t)
	url := s.listen(t)
	s.fake.generate = func(context.Context, *terse.Request, func(terse.Output) error) error { panic("boom") }
	f := func(body string) {
		t.Helper()
		resp := send(t, t.Context(), url+completionPath, body)
		answer := readAll(t, resp.Body)
		if resp.StatusCode != 500 || !strings.Contains(answer, `"code":"internal_error"`) || strings.Contains(answer, "boom") {
			t.Errorf("%s: status %d: %s", body, resp.StatusCode, answer)
		}
	}
	f(`{"prompt":"Hi"}`)
	f(`{"prompt":"Hi","n":3}`)
	f(`{"prompt":"Hi","stream":true}`)
	if logs := s.logs.String(); !strings.Contains(logs, "boom") || !strings.Contains(logs, "server_test.go") {
		t.Errorf("the log lacks the panic and its stack:\n%s", logs)
	}
	s.fake.generate = nil
	s.ok(t, completionPath, `{"prompt":"Hi"}`, &struct{}{}) // the server lives
}

func TestPanicInAHandler(t *testing.T) {
	s := newTestServer(t)
	s.opts.Health = func() error { panic("boom") }
	checkError(t, s.get("/healthz"), 500, "", "internal_error", "log has more")
	if !bytes.Contains([]byte(s.logs.String()), []byte("boom")) {
		t.Error("the log lacks the panic")
	}
}

func TestPanicAfterTheAnswerBegan(t *testing.T) {
	s := newTestServer(t)
	server := httptest.NewServer(s.wrap(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "half an ")
		panic("boom")
	}, nil))
	defer server.Close()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		return // the connection was cut before the head was sent: as good
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a client takes half an answer for a whole one")
	}
}

func TestRequestLine(t *testing.T) {
	s := newTestServer(t)
	s.ok(t, chatPath, `{"model":"alias","messages":[{"role":"user","content":"Hi"}]}`, &struct{}{})
	line := s.logs.request(t)
	for key, want := range map[string]any{
		"level": "INFO", "endpoint": "chat", "model": "alias", "status": 200.0, "finish": "stop", "choices": 1.0,
		"prompt_tokens": 5.0, "cached_tokens": 4.0, "completion_tokens": 6.0,
		"queue_ms": 1.5, "prefill_ms": 20.0, "quantise_ms": 2.0, "transfer_ms": 3.0, "transfer_total_ms": 10.0,
		"wait_ms": 1.0, "decode_ms": 40.0, "attend_ms": 30.0, "pack_ms": 7.0, "unpack_ms": 6.0, "ttft_ms": 25.0, "kv_format": "hq3", "kv_bytes": 1000.0, "kv_bytes_held": 500.0, "kv_bytes_exposed": 100.0, "kv_bytes_f16": 4000.0,
		"kv_bytes_second": 300.0, "planes": "apart: late otherwise, 0.4 s", "top_plane_tokens": 7.0, "adoption_ms": 5.0,
		"route": "split", "ttft_expected_ms": 20.0, "replayed_tokens": 2.0, "recovered_tokens": 9.0, "prefill_worker": "p0", "decode_worker": "d0", "retries": 1.0,
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
	if id, _ := line["id"].(string); !strings.HasPrefix(id, "chatcmpl-") || line["error"] != nil {
		t.Errorf("line %v", line)
	}
	if jct, ok := line["jct_ms"].(float64); !ok || jct <= 0 {
		t.Errorf("jct_ms is %v", line["jct_ms"])
	}
	s.post(chatPath, `{"messages":[]}`)
	if line := s.logs.request(t); line["status"] != 400.0 || line["error"] == nil || line["finish"] != "error" {
		t.Errorf("line of a refused request: %v", line)
	}
}

func TestTimingOfSeveralChoices(t *testing.T) {
	report := newTimingReport([]choiceResult{
		{jct: 2 * time.Second, timing: terse.Timing{Queue: time.Second, KVBytes: 1, KVBytesF16: 10, Retries: 1}},
		{jct: 5 * time.Second, timing: terse.Timing{Queue: 2 * time.Second, KVBytes: 2, KVBytesF16: 20, KVFormat: "hq2"}},
		{jct: time.Second, timing: terse.Timing{KVBytes: 4, KVBytesF16: 40, Retries: 2}},
	}, 6*time.Second)
	if report.Queue != 2000 || report.JCT != 6000 || report.KVBytes != 7 || report.KVBytesF16 != 70 || report.Retries != 3 || report.KVFormat != "hq2" {
		t.Errorf("%+v", report)
	}
	if got := asciiJSON([]byte(`"é🐢"`)); got != `"\u00e9\ud83d\udc22"` {
		t.Errorf("header %s", got)
	}
}
