package chat

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	terse "github.com/terse-llm/terse"
)

func mustParse(t testing.TB, source string) *Template {
	t.Helper()
	now := time.Date(2024, 3, 7, 15, 4, 5, 0, time.FixedZone("CET", 3600))
	tmpl, err := Parse(source, Options{BOS: "<s>", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func TestNamesInTemplate(t *testing.T) {
	f := func(source string, in Input, want string) {
		t.Helper()
		got, err := mustParse(t, source).Render(in)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", source, got, err, want)
		}
	}
	f(`{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}`, Input{}, "<s>TrueTrueFalse")
	f(`{{ enable_thinking }}{{ n + 1 }}{{ bos_token }}`, Input{Extra: map[string]any{"enable_thinking": false, "n": 2, "bos_token": "x"}}, "False3x")
	f(`{{ tools | tojson }}`, Input{Tools: json.RawMessage(`[{"z": 1, "a": {"y": 2, "b": [1.0, 1e2, "<&>"]}}]`)}, `[{"z": 1, "a": {"y": 2, "b": [1.0, 100.0, "<&>"]}}]`)
	f(`{{ tools }}`, Input{Tools: []map[string]int{{"b": 1}}}, `[{'b': 1}]`)
	msg := Message{Role: "assistant", Content: "x", Fields: json.RawMessage(`{"tool_calls": [{"id": "1"}], "content": null, "name": "n"}`)}
	f(`{{ messages[0] }}`, Input{Messages: []Message{msg}}, `{'role': 'assistant', 'content': None, 'tool_calls': [{'id': '1'}], 'name': 'n'}`)
	f(`{{ messages }}`, Input{Messages: turns("user", "<b>'é'")}, `[{'role': 'user', 'content': "<b>'é'"}]`)
	f(`{{ strftime_now("%d %b %Y, %A %H:%M:%S %-d.%-m.%y %j %p %I %% %e %F %T %z") }}`, Input{}, "07 Mar 2024, Thursday 15:04:05 7.3.24 067 PM 03 %  7 2024-03-07 15:04:05 +0100")
}

func TestRenderErrors(t *testing.T) {
	f := func(source, want string, in Input) {
		t.Helper()
		out, err := mustParse(t, source).Render(in)
		if err == nil || out != "" || !strings.Contains(err.Error(), want) || terse.CodeOf(err) != terse.CodeInvalid {
			t.Errorf("%s: got %q, error %v, code %s; want %q", source, out, err, terse.CodeOf(err), want)
		}
		if wire := terse.AsError(err); err != nil && wire.Message != err.Error() {
			t.Errorf("on the wire the message is %q, want %q", wire.Message, err)
		}
	}
	user := Input{Messages: turns("user", "Hi")}
	f("a\n{{ messages[0].content + 1 }}", "line 2: unsupported operand types for +: 'str' and 'int'", user)
	f("{{ messages[0].nope.x }}", "'dict object' has no attribute 'nope'", user)
	f("{{ raise_exception() }}", "raise_exception takes one message", user)
	f("{{ raise_exception(1) }}", "takes a string", user)
	f("{{ strftime_now('%Q') }}", "unsupported conversion %Q", user)
	f("{{ strftime_now('%') }}", "ends in %", user)
	f("{{ strftime_now('x' * 1000) }}", "longer than", user)
	f("{{ strftime_now() }}", "takes one format", user)
	f("x", "message 0: the text is not valid UTF-8", Input{Messages: turns("user", "\xff")})
	f("x", "message 1: its fields are no JSON object", Input{Messages: []Message{{}, {Fields: json.RawMessage(`[]`)}}})
	f("x", "cannot read JSON", Input{Messages: []Message{{Fields: json.RawMessage(`{"a": `)}}})
	f("x", "cannot read JSON: more follows", Input{Tools: json.RawMessage(`[] []`)})
	f("x", "deeper than", Input{Tools: json.RawMessage(strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000))})
	f("x", `cannot pass "f"`, Input{Extra: map[string]any{"f": math.Inf(1)}})
}

func TestRefusal(t *testing.T) {
	tmpl := mustParse(t, "{% if messages[0].role == 'system' %}\n{{ raise_exception('System role not supported') }}{% endif %}ok")
	_, err := tmpl.Render(Input{Messages: turns("system", "x")})
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Message != "System role not supported" {
		t.Fatalf("error is %v, want the refusal", err)
	}
	if want := "the model's chat template refuses these messages: System role not supported"; err.Error() != want {
		t.Errorf("message is %q, want %q", err, want)
	}
	if !errors.Is(err, &terse.Error{Code: terse.CodeInvalid}) {
		t.Errorf("the code is %s", terse.CodeOf(err))
	}
	if out, err := tmpl.Render(Input{Messages: turns("user", "x")}); out != "ok" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestHostileTemplate: the engine's own tests have the many ways; here, that
// the limits of a rendering are on.
func TestHostileTemplate(t *testing.T) {
	f := func(source string) {
		t.Helper()
		_, err := mustParse(t, source).Render(Input{Messages: turns("user", strings.Repeat("x", 1000))})
		if err == nil || terse.CodeOf(err) != terse.CodeInvalid || !strings.Contains(err.Error(), "cannot render chat template") {
			t.Errorf("%s: error is %v", source, err)
		}
	}
	f(`{% for i in range(10**9) %}{% endfor %}`)
	f(`{% set ns = namespace(x="x") %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}`)
	f(`{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`)
	f(`{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}`)
	f(`{{ "".__class__.__mro__ }}`)
	if _, err := Parse(strings.Repeat("x", 1<<20), Options{}); terse.CodeOf(err) != terse.CodeInvalid {
		t.Errorf("a template of 1 MiB: error is %v", err)
	}
	if !testing.Short() {
		f(`{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}`)
	}
}

// TestLongConversation: the limits must leave room for real work.
func TestLongConversation(t *testing.T) {
	text := strings.Repeat("A sentence of some length, as people write.\n", 250)
	var list []Message
	for range 100 {
		list = append(list, turns("user", text, "assistant", text)...)
	}
	for _, source := range []string{
		`{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}`,
		`{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'].strip() }}{% endfor %}`,
		`{% set ns = namespace(out="") %}{% for m in messages %}{% set ns.out = ns.out ~ "<|" ~ m.role ~ "|>" ~ m.content.strip() %}{% endfor %}{{ ns.out }}`,
	} {
		out, err := mustParse(t, source).Render(Input{Messages: list})
		want := len(list)*len(strings.TrimSpace(text)) + 100*len("<|user|><|assistant|>")
		if err != nil || len(out) != want {
			t.Errorf("%s: %d bytes, %v; want %d", source, len(out), err, want)
		}
	}
}

func TestConcurrentRender(t *testing.T) {
	tmpl := mustParse(t, `{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}{{ messages[0].content }}`)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			text := strings.Repeat("x", i)
			if out, err := tmpl.Render(Input{Messages: turns("user", text, "user", "")}); err != nil || out != "3"+text {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
	wg.Wait()
}

// FuzzParseRender feeds hostile templates and hostile requests together.
func FuzzParseRender(f *testing.F) {
	f.Add(`{% for m in messages %}{{ m.role }}{{ m.content | trim }}{% endfor %}`, "user", "Hi", `{"name": "n"}`, `[{"a": 1}]`)
	f.Add(`{{ raise_exception(messages[0].role) }}`, "a", "b", ``, `null`)
	f.Add(`{{ strftime_now(messages[0].content) }}{{ tools | tojson(indent=2) }}`, "a", "%Y %-d", `{"content": [1]}`, `{"x": [1.5, null]}`)
	f.Add(`{% generation %}{{ messages[0].content.split("</think>")[-1].lstrip("\n") }}{% endgeneration %}`, "a", "x</think>\ny", `{"content": "é"}`, `0`)
	f.Fuzz(func(t *testing.T, source, role, content, fields, tools string) {
		tmpl, err := Parse(source, Options{BOS: "<s>"})
		if err != nil {
			if terse.CodeOf(err) != terse.CodeInvalid {
				t.Fatalf("Parse: %v has the code %s", err, terse.CodeOf(err))
			}
			return
		}
		m := Message{Role: role, Content: content, Fields: json.RawMessage(fields)}
		out, err := tmpl.Render(Input{Messages: []Message{m}, Tools: json.RawMessage(tools), AddGenerationPrompt: true})
		if err != nil && (terse.CodeOf(err) != terse.CodeInvalid || out != "") {
			t.Fatalf("Render: %q, %v has the code %s", out, err, terse.CodeOf(err))
		}
		if limit := limits(len(source) + len(role) + len(content) + len(fields) + len(tools)).Output; len(out) > limit {
			t.Fatalf("wrote %d bytes of %d", len(out), limit)
		}
	})
}
