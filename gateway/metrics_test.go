package gateway

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
)

// sample is the value of a series in the exposition text.
func sample(t *testing.T, text, series string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Errorf("no series %s", series)
	return ""
}

func TestMetrics(t *testing.T) {
	s := newTestServer(t)
	s.fake.members = []cluster.Member{
		{ID: "p0", Running: 1, Waiting: 2, KVFree: 100, KVTotal: 100},
		{ID: "d0", Running: 3, KVFree: 0, KVTotal: 300},
	}
	s.ok(t, chatPath, `{"n":2,"messages":[{"role":"user","content":"Hi"}]}`, &struct{}{})
	s.ok(t, completionPath, `{"prompt":"Hi","max_tokens":2}`, &struct{}{})
	s.fake.generate = failing(1, errors.New("x"))
	s.post(completionPath, `{"prompt":"Hi"}`)
	text := s.get("/metrics").Body.String()
	f := func(name, label, want string) {
		t.Helper()
		labels := `{model_name="terse-16m"}`
		if label != "" {
			labels = `{` + strings.Replace(label, "MODEL", `model_name="terse-16m"`, 1) + `}`
		}
		if got := sample(t, text, name+labels); got != want {
			t.Errorf("%s%s is %s, want %s", name, labels, got, want)
		}
	}
	prompts := 5 + 5 + len(encode(t, "Hi"))
	if prompts != 12 {
		t.Fatalf("the test counts 12 prompt tokens, the tokenizer %d", prompts)
	}
	f("vllm:num_requests_running", "", "4")
	f("vllm:num_requests_waiting", "", "2")
	f("vllm:kv_cache_usage_perc", "", "0.75")
	f("vllm:prompt_tokens_total", "", "12")
	f("vllm:generation_tokens_total", "", "15") // 6, 6, 2, and 1 before the failure
	f("vllm:prompt_tokens_cached_total", "", "12")
	f("vllm:prefix_cache_queries_total", "", "12")
	f("vllm:prefix_cache_hits_total", "", "12")
	f("vllm:request_success_total", `finished_reason="stop",MODEL`, "2")
	f("vllm:request_success_total", `finished_reason="length",MODEL`, "1")
	f("vllm:request_success_total", `finished_reason="error",MODEL`, "1")
	f("vllm:request_success_total", `finished_reason="abort",MODEL`, "0")
	f("vllm:time_to_first_token_seconds_count", "", "4")
	f("vllm:inter_token_latency_seconds_count", "", "11")
	f("vllm:time_per_output_token_seconds_count", "", "11")
	f("vllm:request_time_per_output_token_seconds_count", "", "3")
	f("vllm:e2e_request_latency_seconds_count", "", "3")
	f("vllm:request_prefill_time_seconds_sum", "", "0.06")
	f("vllm:request_decode_time_seconds_sum", "", "0.12")
	f("vllm:request_queue_time_seconds_sum", "", "0.0075")
	f("vllm:request_prompt_tokens_sum", "", "12")
	f("vllm:request_generation_tokens_sum", "", "14")
	f("terse_kv_transfer_bytes_total", "", "3000")
	f("terse_kv_transfer_f16_bytes_total", "", "12000")
	f("terse_kv_transfer_seconds_sum", "", "0.009000000000000001")
	f("terse_kv_transfer_total_seconds_sum", "", "0.03")
	f("terse_kv_transfer_exposed_ratio_sum", "", "0.30000000000000004")
	f("terse_kv_transfer_held_bytes_total", "", "1500")
	f("terse_request_retries_total", "", "3")
	f("terse_request_replayed_tokens_total", "", "6")
	f("terse_request_recovered_tokens_total", "", "27")
	f("terse_route_ttft_ratio_sum", "", "3.75")
	f("terse_progressive_decisions_total", `MODEL,reason="apart: late otherwise"`, "3")
	f("terse_progressive_top_bytes_total", "", "2100")
	f("terse_progressive_second_bytes_total", "", "900")
	f("terse_progressive_top_tokens_total", "", "21")
	f("terse_progressive_adoption_seconds_sum", "", "0.015")
	f("terse_route_decisions_total", `MODEL,reason="split"`, "3")
}

func TestTokenMeter(t *testing.T) {
	s := newTestServer(t)
	now := time.Unix(100, 0)
	m := s.metrics.meter(now, func() time.Time { return now })
	if m.ttft() != 0 || m.decode() != 0 {
		t.Errorf("without tokens: ttft %v, decode %v", m.ttft(), m.decode())
	}
	step := func(d time.Duration, n int) {
		now = now.Add(d)
		m.tokens(n)
	}
	step(2*time.Second, 1)
	step(time.Second, 2)
	step(3*time.Second, 1)
	now = now.Add(time.Second)
	if m.ttft() != 2*time.Second || m.decode() != 4*time.Second || m.elapsed() != 7*time.Second {
		t.Errorf("ttft %v, decode %v, elapsed %v", m.ttft(), m.decode(), m.elapsed())
	}
	text := s.get("/metrics").Body.String()
	if got := sample(t, text, `vllm:inter_token_latency_seconds_sum{model_name="terse-16m"}`); got != "4" {
		t.Errorf("gaps sum to %s", got)
	}
}

func TestCountBuckets(t *testing.T) {
	got := countBuckets(60)
	want := []float64{1, 2, 5, 10, 20, 50}
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestWithoutTimingFromTheWorker(t *testing.T) {
	s := newTestServer(t)
	now := time.Unix(100, 0)
	s.now = func() time.Time { return now }
	s.fake.generate = func(_ context.Context, _ *terse.Request, emit func(terse.Output) error) error {
		for range 3 {
			now = now.Add(time.Second)
			if err := emit(terse.Output{Tokens: []terse.Token{300}}); err != nil {
				return err
			}
		}
		return emit(terse.Output{Finish: terse.FinishLength})
	}
	s.ok(t, completionPath, `{"prompt":"Hi"}`, &struct{}{})
	if line := s.logs.request(t); line["ttft_ms"] != 1000.0 || line["decode_ms"] != 2000.0 || line["jct_ms"] != 3000.0 || line["completion_tokens"] != 3.0 {
		t.Errorf("what the gateway measured is not in the log: %v", line)
	}
}

func TestRouteLabel(t *testing.T) {
	f := func(reason, want string) {
		t.Helper()
		if got := routeLabel(reason); got != want {
			t.Errorf("label of %q is %q, want %q", reason, got, want)
		}
	}
	f("split", "split")
	f("stay: 37 tokens to compute, fewer than 256", "stay: N tokens to compute")
	f(`split: 4096 tokens to compute, "p0" is the least loaded of 2`, "split: N tokens to compute")
}
