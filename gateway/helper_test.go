package gateway

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/tokenizer"
	"github.com/terse-llm/terse/tokenizer/chat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tokUser      = terse.Token(1) // <|user|>
	tokAssistant = terse.Token(2) // <|assistant|>
	tokEnd       = terse.Token(3) // <|end|>
)

// loadTokenizer reads the default model's tokenizer, once for all tests.
var loadTokenizer = sync.OnceValues(func() (*tokenizer.Tokenizer, error) {
	return tokenizer.Load(os.DirFS("../internal/defaultmodel"))
})

func testTokenizer(t testing.TB) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := loadTokenizer()
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func encode(t testing.TB, text string) []terse.Token {
	t.Helper()
	ids, err := testTokenizer(t).Encode(text, tokenizer.EncodeOptions{ParseSpecial: true})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// turnTemplate writes turns as the default model reads them, and trims, as most
// models' templates do.
const turnTemplate = `{%- for m in messages -%}
{%- if m.role == 'system' and not loop.first %}{{ raise_exception('a system message must be the first, not ' + m.content) }}{% endif -%}
<|{{ m.role }}|>{{ m.content | trim }}<|end|>
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}`

func testTemplate(t testing.TB, source string) *chat.Template {
	t.Helper()
	template, err := chat.Parse(source, chat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return template
}

// fakeDispatcher answers every request with the same text, token by token.
type fakeDispatcher struct {
	reply   string
	members []cluster.Member
	ready   error
	// generate, where set, is called instead.
	generate func(ctx context.Context, req *terse.Request, emit func(terse.Output) error) error

	tok *tokenizer.Tokenizer
	mu  sync.Mutex
	got []terse.Request
}

func (f *fakeDispatcher) Ready() error              { return f.ready }
func (f *fakeDispatcher) Members() []cluster.Member { return f.members }

func (f *fakeDispatcher) Generate(ctx context.Context, req *terse.Request, emit func(terse.Output) error) error {
	f.mu.Lock()
	f.got = append(f.got, *req)
	f.mu.Unlock()
	if f.generate != nil {
		return f.generate(ctx, req, emit)
	}
	return f.answer(ctx, req, emit)
}

func (f *fakeDispatcher) last() terse.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got[len(f.got)-1]
}

// testTiming is what the fake worker reports.
func testTiming() *terse.Timing {
	return &terse.Timing{
		Queue: 1500 * time.Microsecond, Prefill: 20 * time.Millisecond, Quantise: 2 * time.Millisecond,
		Transfer: 3 * time.Millisecond, Wait: time.Millisecond, Decode: 40 * time.Millisecond, Attend: 30 * time.Millisecond, Pack: 7 * time.Millisecond, Unpack: 6 * time.Millisecond, TTFT: 25 * time.Millisecond,
		TransferTotal: 10 * time.Millisecond, KVFormat: "hq3", KVBytes: 1000, KVSecond: 300, KVBytesHeld: 500, KVExposed: 100, KVBytesF16: 4000,
		PrefillWorker: "p0", DecodeWorker: "d0", Route: "split", Expected: 20 * time.Millisecond, Replayed: 2, Recovered: 9, Retries: 1,
		Planes: "apart: late otherwise, 0.4 s", PlaneRecord: terse.PlaneRecord{Awaited: []int{1}, Adopted: []terse.Adoption{{At: 64, Pages: []int{1}}}},
		TopTokens: 7, Adoption: 5 * time.Millisecond,
	}
}

func (f *fakeDispatcher) answer(ctx context.Context, req *terse.Request, emit func(terse.Output) error) error {
	if req.Sampling.PromptLogprobs >= 0 {
		var scores []terse.Scored
		for _, t := range req.Prompt[1:] {
			scores = append(scores, fakeScore(t, req.Sampling.PromptLogprobs))
		}
		if err := emit(terse.Output{Prompt: scores}); err != nil {
			return err
		}
	}
	ids, _ := f.tok.Encode(f.reply, tokenizer.EncodeOptions{ParseSpecial: true})
	finish := terse.FinishStop
	if len(ids) >= req.MaxTokens {
		ids, finish = ids[:req.MaxTokens], terse.FinishLength
	} else if len(req.StopTokens) > 0 {
		ids = append(ids, req.StopTokens[0])
	}
	for _, t := range ids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		out := terse.Output{Tokens: []terse.Token{t}}
		if req.Sampling.Logprobs >= 0 {
			out.Scores = []terse.Scored{fakeScore(t, req.Sampling.Logprobs)}
		}
		if err := emit(out); err != nil {
			return err
		}
	}
	return emit(terse.Output{
		Finish: finish, Timing: testTiming(),
		Usage: &terse.Usage{PromptTokens: len(req.Prompt), CompletionTokens: len(ids), CachedTokens: 4},
	})
}

// fakeScore gives token t the log-probability -t/100, and the alternatives
// t, t+1, … less and less.
func fakeScore(t terse.Token, top int) terse.Scored {
	s := terse.Scored{Logprob: terse.Logprob{Token: t, Logprob: -float32(t) / 100}}
	for i := range top {
		s.Top = append(s.Top, terse.Logprob{Token: t + terse.Token(i), Logprob: -float32(t)/100 - float32(i)})
	}
	return s
}

// testServer is a Server over a fake dispatcher.
type testServer struct {
	*Server
	fake *fakeDispatcher
	logs *logBuffer
}

func newTestServer(t testing.TB, change ...func(*Options)) *testServer {
	t.Helper()
	fake := &fakeDispatcher{reply: "Hello there, world.", tok: testTokenizer(t)}
	logs := &logBuffer{}
	opts := Options{
		Dispatcher: fake, Tokenizer: fake.tok, Template: testTemplate(t, turnTemplate), Models: []string{"terse-16m", "alias"},
		MaxContext: 512, StopTokens: []terse.Token{tokEnd, 0}, Created: time.Unix(1700000000, 0),
		Logger: slog.New(slog.NewJSONHandler(logs, nil)),
	}
	for _, c := range change {
		c(&opts)
	}
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return &testServer{Server: s, fake: fake, logs: logs}
}

// fixed makes ids and times the same in every run.
func (s *testServer) fixed() *testServer {
	s.newID = func(prefix string) string { return prefix + "-1" }
	s.now = func() time.Time { return time.Unix(1750000000, 0) }
	return s
}

// post sends a body to the handler without a network.
func (s *testServer) post(path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func (s *testServer) get(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// ok posts and decodes the answer, which must be 200.
func (s *testServer) ok(t testing.TB, path, body string, into any) *httptest.ResponseRecorder {
	t.Helper()
	w := s.post(path, body)
	if w.Code != http.StatusOK {
		t.Fatalf("POST %s %s: status %d: %s", path, body, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Fatalf("POST %s: %v in %s", path, err, w.Body)
	}
	return w
}

// wireError is OpenAI's error object as a client reads it.
type wireError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

// refuses posts and checks status, param, code and a part of the message.
func (s *testServer) refuses(t testing.TB, path, body string, status int, param, code, message string) {
	t.Helper()
	checkError(t, s.post(path, body), status, param, code, message)
}

func checkError(t testing.TB, w *httptest.ResponseRecorder, status int, param, code, message string) {
	t.Helper()
	var out struct{ Error *wireError }
	dec := json.NewDecoder(w.Body)
	if err := dec.Decode(&out); err != nil || out.Error == nil {
		t.Fatalf("status %d, not an error object: %v", w.Code, err)
	}
	got := *out.Error
	deref := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	if w.Code != status || deref(got.Param) != param || deref(got.Code) != code || !strings.Contains(got.Message, message) || got.Type == "" {
		t.Errorf("got status %d, param %q, code %q, type %q, message %q;\nwant status %d, param %q, code %q, message with %q",
			w.Code, deref(got.Param), deref(got.Code), got.Type, got.Message, status, param, code, message)
	}
}

// logBuffer keeps log lines.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// request is the last "request" line.
func (b *logBuffer) request(t testing.TB) map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(b.text.String()), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var line map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &line); err == nil && line["msg"] == "request" {
			return line
		}
	}
	t.Fatalf("no request line in the log:\n%s", b.text.String())
	return nil
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
