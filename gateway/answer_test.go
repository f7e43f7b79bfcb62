package gateway

import (
	"context"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/terse-llm/terse"
)

// play pushes the tokens of text one by one and returns the steps.
func play(t testing.TB, text string, stops ...string) (steps []string, a *answerText) {
	t.Helper()
	a = &answerText{stream: testTokenizer(t).NewContinuation(true), stops: stops}
	for _, id := range encode(t, text) {
		steps = append(steps, a.push(id, nil).text)
		if a.stopped {
			return steps, a
		}
	}
	return append(steps, a.finish().text), a
}

func TestStopStrings(t *testing.T) {
	f := func(text, want string, stopped bool, stops ...string) {
		t.Helper()
		steps, a := play(t, text, stops...)
		if got := strings.Join(steps, ""); got != want || a.stopped != stopped {
			t.Errorf("%q with stops %q: %q (stopped %v), want %q (%v)", text, stops, got, a.stopped, want, stopped)
		}
	}
	f("Hello there, world.", "Hello there", true, ",")
	f("Hello there, world.", "He", true, "llo th")        // across tokens
	f("Hello there, world.", "Hello t", true, "here, wo") // across three
	f("Hello there, world.", "", true, "Hello")
	f("Hello there, world.", "Hello there, world", true, ".") // in the last token
	f("Hello there, world.", "Hello there, world.", false, "worlds", "xyz")
	f("Hello there, world.", "Hello", true, "world", " there")
	f("aaab", "", true, "aab", "aaa")
	f("aaab", "a", true, "aab", "aaaa")
	f("one\n\ntwo", "one", true, "\n\n")
	f("a 🐢🐢 b", "a 🐢", true, "🐢 ") // tokens are parts of a character
	f("a 🐢", "a 🐢", false, "🐢🐢")   // held back, then released
	f("a 🐢", "a 🐢", false)
}

func TestNothingOfAStopStringIsSent(t *testing.T) {
	s := newTestServer(t)
	s.fake.reply = "The answer is 42. END of it"
	body := s.post(completionPath, `{"prompt":"Hi","stream":true,"stop":["END of"],"max_tokens":50}`).Body.String()
	if strings.Contains(body, "E") && strings.Contains(strings.Join(events(t, body), ""), `"text":" E`) {
		t.Errorf("a part of the stop string was sent:\n%s", body)
	}
	var out completion
	s.ok(t, completionPath, `{"prompt":"Hi","stop":["END of"],"max_tokens":50}`, &out)
	if out.Choices[0].Text != "The answer is 42. " || out.Choices[0].FinishReason != "stop" {
		t.Errorf("choice %+v", out.Choices[0])
	}
	want := 0 // tokens until the stop string is whole
	for n := range encode(t, s.fake.reply) {
		if strings.Contains(s.fake.tok.Decode(encode(t, s.fake.reply)[:n+1], true), "END of") {
			want = n + 1
			break
		}
	}
	if out.Usage.CompletionTokens != want {
		t.Errorf("%d completion tokens, want %d", out.Usage.CompletionTokens, want)
	}
}

func TestStopStringCancelsTheRequest(t *testing.T) {
	s := newTestServer(t)
	ids := encode(t, "one two three")
	emitted := 0
	s.fake.generate = func(ctx context.Context, _ *terse.Request, emit func(terse.Output) error) error {
		for ctx.Err() == nil {
			if err := emit(terse.Output{Tokens: ids}); err != nil {
				return err
			}
			emitted++
		}
		// What the worker reports of a cancelled request still counts.
		_ = emit(terse.Output{Finish: terse.FinishCancel, Timing: testTiming(), Usage: &terse.Usage{PromptTokens: 1, CompletionTokens: 99, CachedTokens: 1}})
		return ctx.Err()
	}
	var out completion
	w := s.ok(t, completionPath, `{"prompt":"Hi","stop":" two","max_tokens":400}`, &out)
	if out.Choices[0].Text != "one" || out.Choices[0].FinishReason != "stop" || emitted != 1 {
		t.Errorf("%+v after %d outputs", out.Choices[0], emitted)
	}
	if out.Usage.CompletionTokens > len(ids) || out.Usage.PromptTokensDetails.CachedTokens != 1 {
		t.Errorf("usage %+v", out.Usage)
	}
	if !strings.Contains(w.Header().Get("x-terse-timing"), `"prefill_ms":20`) {
		t.Errorf("timing %s", w.Header().Get("x-terse-timing"))
	}
}

// A worker that is cancelled has no time for a last word: what it reported with
// an earlier output stays.
func TestStopKeepsAnEarlierTiming(t *testing.T) {
	s := newTestServer(t)
	s.fake.generate = func(ctx context.Context, _ *terse.Request, emit func(terse.Output) error) error {
		if err := emit(terse.Output{Tokens: encode(t, "one"), Timing: &terse.Timing{Prefill: 7 * time.Millisecond, KVBytes: 5}}); err != nil {
			return err
		}
		if err := emit(terse.Output{Tokens: encode(t, " two")}); err != nil {
			return err
		}
		return ctx.Err()
	}
	w := s.ok(t, completionPath, `{"prompt":"Hi","stop":" two"}`, &struct{}{})
	if got := w.Header().Get("x-terse-timing"); !strings.Contains(got, `"prefill_ms":7,`) || !strings.Contains(got, `"kv_bytes":5,`) {
		t.Errorf("timing %s", got)
	}
}

func TestStoppedLogprobs(t *testing.T) {
	s := newTestServer(t)
	s.fake.reply = "one two three four"
	var out completion
	s.ok(t, completionPath, `{"prompt":"Hi","stop":" three","logprobs":1,"max_tokens":50}`, &out)
	if got := strings.Join(out.Choices[0].Logprobs.Tokens, ""); got != "one two" {
		t.Errorf("tokens of the stop string are listed: %q", got)
	}
}

// A stop string ends the answer when it is complete, though a longer one that
// began before it could still be.
func TestFirstStop(t *testing.T) {
	f := func(text string, want int, stops ...string) {
		t.Helper()
		if got := firstStop(text, stops); got != want {
			t.Errorf("%q with stops %q: %d, want %d", text, stops, got, want)
		}
	}
	f("ab c", 1, "ab ", "b")
	f("ab c", 0, "b ", "ab ")
	f("ab c", 0, "ab", "b ")
	f("ab c", -1, "x")
	f("ab c", -1)
}

// Whatever the text, the stops and the cut into tokens: what is sent is the
// text before the first stop string, in pieces of whole characters.
func TestAnswerTextProperty(t *testing.T) {
	alphabet := []string{"a", "b", "ab", " ", "é", "🐢", "<|en", "stop", "\n"}
	rapid.Check(t, func(r *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(alphabet), 0, 30).Draw(r, "text"), "")
		var stops []string
		for _, words := range rapid.SliceOfN(rapid.SliceOfN(rapid.SampledFrom(alphabet), 1, 3), 0, 4).Draw(r, "stops") {
			stops = append(stops, strings.Join(words, ""))
		}
		want := text
		if at := firstStop(text, stops); at >= 0 {
			want = text[:at]
		}
		steps, _ := play(t, text, stops...)
		if got := strings.Join(steps, ""); got != want {
			r.Fatalf("%q with stops %q: %q, want %q", text, stops, got, want)
		}
		for _, step := range steps {
			if !utf8.ValidString(step) {
				r.Fatalf("step %q is broken UTF-8", step)
			}
		}
	})
}

func TestBrokenUTF8(t *testing.T) {
	s := newTestServer(t)
	turtle := encode(t, "🐢")
	if len(turtle) < 2 {
		t.Fatalf("the test wants a character of several tokens, got %v", turtle)
	}
	// Half a character at the end of the answer.
	s.fake.generate = func(_ context.Context, _ *terse.Request, emit func(terse.Output) error) error {
		for _, id := range append(encode(t, "a 🐢"), turtle[0]) {
			if err := emit(terse.Output{Tokens: []terse.Token{id}}); err != nil {
				return err
			}
		}
		return emit(terse.Output{Finish: terse.FinishLength})
	}
	var text strings.Builder
	body := s.post(completionPath, `{"prompt":"Hi","stream":true}`).Body.String()
	for _, e := range events(t, body) {
		_, rest, _ := strings.Cut(e, `"text":"`)
		piece, _, _ := strings.Cut(rest, `"`)
		if strings.Contains(piece, "\ufffd") && piece != "\ufffd" {
			t.Errorf("a half character went out early: %s", e)
		}
		text.WriteString(piece)
	}
	if got := text.String(); got != "a 🐢\ufffd" {
		t.Errorf("got %q", got)
	}
}
