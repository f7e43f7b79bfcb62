package gateway

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/terse-llm/terse"
)

// metrics are the gateway's figures: vLLM's names where the meaning is vLLM's,
// so that dashboards made for it chart Terse too, and terse_* for our own. All
// carry the label model_name.
type metrics struct {
	promptTokens, cachedTokens, generatedTokens prometheus.Counter
	prefixQueries, prefixHits                   prometheus.Counter
	finished                                    *prometheus.CounterVec // finished_reason

	ttft, interToken, perToken       prometheus.Histogram
	requestPerToken                  prometheus.Histogram
	latency, queue, prefill, decode  prometheus.Histogram
	requestPrompt, requestGeneration prometheus.Histogram

	kvBytes, kvHeld, kvBytesF16, retries, replayed, recovered prometheus.Counter
	transfer, transferTotal                                   prometheus.Histogram
	exposed                                                   prometheus.Histogram
	routes                                                    *prometheus.CounterVec // reason
	expected                                                  prometheus.Histogram   // of routing

	planes                *prometheus.CounterVec // reason
	topBytes, secondBytes prometheus.Counter     // of transfers in two parts
	topTokens             prometheus.Counter
	adoption              prometheus.Histogram
}

// Bucket bounds in seconds, vLLM's: quantiles of both are comparable.
func latencyBuckets() []float64 {
	return []float64{0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
}

func ttftBuckets() []float64 {
	return []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
}

func tokenBuckets() []float64 {
	return []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
}

// countBuckets are 1, 2, 5, 10, … up to limit.
func countBuckets(limit int) []float64 {
	var buckets []float64
	for decade := 1; decade <= limit; decade *= 10 {
		for _, m := range []int{1, 2, 5} {
			if m*decade <= limit {
				buckets = append(buckets, float64(m*decade))
			}
		}
	}
	return buckets
}

// registrar collects the first error of many registrations.
type registrar struct {
	to  prometheus.Registerer
	err error
}

func (r *registrar) add(c prometheus.Collector) {
	if err := r.to.Register(c); err != nil && r.err == nil {
		r.err = err
	}
}

func (r *registrar) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	r.add(c)
	return c
}

func (r *registrar) counters(name, help, label string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	r.add(c)
	return c
}

func (r *registrar) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	r.add(h)
	return h
}

func newMetrics(opts *Options) (*metrics, error) {
	r := &registrar{to: prometheus.WrapRegistererWith(prometheus.Labels{"model_name": opts.Models[0]}, opts.Registry)}
	m := &metrics{
		promptTokens:    r.counter("vllm:prompt_tokens_total", "Prompt tokens of finished requests."),
		cachedTokens:    r.counter("vllm:prompt_tokens_cached_total", "Prompt tokens whose KV was reused."),
		generatedTokens: r.counter("vllm:generation_tokens_total", "Tokens generated."),
		prefixQueries:   r.counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache."),
		prefixHits:      r.counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache."),
		finished:        r.counters("vllm:request_success_total", "Finished requests, by reason.", "finished_reason"),

		ttft:            r.histogram("vllm:time_to_first_token_seconds", "From a request's arrival to its first token.", ttftBuckets()),
		interToken:      r.histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request.", tokenBuckets()),
		perToken:        r.histogram("vllm:time_per_output_token_seconds", "Older name of vllm:inter_token_latency_seconds.", tokenBuckets()),
		requestPerToken: r.histogram("vllm:request_time_per_output_token_seconds", "Mean time between the tokens of a request.", tokenBuckets()),
		latency:         r.histogram("vllm:e2e_request_latency_seconds", "From a request's arrival to its end.", latencyBuckets()),
		queue:           r.histogram("vllm:request_queue_time_seconds", "Waiting for a prefill slot and, KV there, for a decode slot.", latencyBuckets()),
		prefill:         r.histogram("vllm:request_prefill_time_seconds", "Computing the prompt.", latencyBuckets()),
		decode:          r.histogram("vllm:request_decode_time_seconds", "From the first token to the last.", latencyBuckets()),

		requestPrompt:     r.histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", countBuckets(opts.MaxContext)),
		requestGeneration: r.histogram("vllm:request_generation_tokens", "Tokens generated for a request.", countBuckets(opts.MaxContext)),

		kvBytes:       r.counter("terse_kv_transfer_bytes_total", "KV bytes that crossed between workers."),
		kvHeld:        r.counter("terse_kv_transfer_held_bytes_total", "KV bytes that did not cross between workers because the decode worker held the prefix."),
		kvBytesF16:    r.counter("terse_kv_transfer_f16_bytes_total", "What the same tokens' KV would have been in f16."),
		recovered:     r.counter("terse_request_recovered_tokens_total", "Tokens that were not computed again for that, as a replica had their KV."),
		replayed:      r.counter("terse_request_replayed_tokens_total", "Generated tokens from behind which another decode worker went on, as theirs was lost."),
		retries:       r.counter("terse_request_retries_total", "Attempts on another worker after a lost one or a broken transfer."),
		transfer:      r.histogram("terse_kv_transfer_seconds", "KV transfer that was not hidden behind prefill.", ttftBuckets()),
		transferTotal: r.histogram("terse_kv_transfer_total_seconds", "KV transfer from its first byte to its last, the hidden part included.", ttftBuckets()),
		exposed:       r.histogram("terse_kv_transfer_exposed_ratio", "Part of a transfer's KV bytes that had not arrived when the prompt was computed: what prefill did not hide.", []float64{0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1}),
		expected:      r.histogram("terse_route_ttft_ratio", "Time to first token over what routing expected of it: 1 is right, more is late.", []float64{0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.33, 2, 4, 10}),
		routes:        r.counters("terse_route_decisions_total", "Requests by why they were split or stayed.", "reason"),

		planes:      r.counters("terse_progressive_decisions_total", "Split requests by why their second planes came apart from the rest, or with it.", "reason"),
		topBytes:    r.counter("terse_progressive_top_bytes_total", "KV bytes that requests whose second planes came apart began decoding on."),
		secondBytes: r.counter("terse_progressive_second_bytes_total", "KV bytes of second planes that came apart from the rest."),
		topTokens:   r.counter("terse_progressive_top_tokens_total", "Tokens computed while some second planes were not read."),
		adoption:    r.histogram("terse_progressive_adoption_seconds", "From a request's first token until all of its second planes were read.", ttftBuckets()),
	}
	r.add(newMemberCollector(opts.Dispatcher))
	if r.err != nil {
		return nil, fmt.Errorf("cannot register the gateway's metrics: %w", r.err)
	}
	for _, reason := range []string{"stop", "length", "abort", "error"} {
		m.finished.WithLabelValues(reason) // rates need the zero before the first event
	}
	return m, nil
}

// choice counts a finished choice.
func (m *metrics) choice(r choiceResult, err error) {
	m.finished.WithLabelValues(finishedReason(r.finish, err)).Inc()
	if err != nil {
		return
	}
	u, t := r.usage, r.timing
	m.promptTokens.Add(float64(u.PromptTokens))
	m.cachedTokens.Add(float64(u.CachedTokens))
	m.prefixQueries.Add(float64(u.PromptTokens))
	m.prefixHits.Add(float64(u.CachedTokens))
	m.requestPrompt.Observe(float64(u.PromptTokens))
	m.requestGeneration.Observe(float64(u.CompletionTokens))
	m.latency.Observe(r.jct.Seconds())
	m.queue.Observe((t.Queue + t.Wait).Seconds())
	m.prefill.Observe(t.Prefill.Seconds())
	m.decode.Observe(t.Decode.Seconds())
	if u.CompletionTokens > 1 {
		m.requestPerToken.Observe(t.Decode.Seconds() / float64(u.CompletionTokens-1))
	}
	m.retries.Add(float64(t.Retries))
	m.replayed.Add(float64(t.Replayed))
	m.recovered.Add(float64(t.Recovered))
	if t.Route != "" {
		m.routes.WithLabelValues(routeLabel(t.Route)).Inc()
	}
	if t.Expected > 0 {
		m.expected.Observe(t.TTFT.Seconds() / t.Expected.Seconds())
	}
	m.progressive(&t)
	if t.KVBytes > 0 {
		m.kvBytes.Add(float64(t.KVBytes))
		m.kvHeld.Add(float64(t.KVBytesHeld))
		m.kvBytesF16.Add(float64(t.KVBytesF16))
		m.transfer.Observe(t.Transfer.Seconds())
		m.transferTotal.Observe(t.TransferTotal.Seconds())
		m.exposed.Observe(float64(t.KVExposed) / float64(t.KVBytes))
	}
}

// progressive counts what became of a request's second planes.
func (m *metrics) progressive(t *terse.Timing) {
	if t.Planes != "" {
		m.planes.WithLabelValues(routeLabel(t.Planes)).Inc()
	}
	if len(t.Awaited) == 0 {
		return
	}
	m.topBytes.Add(float64(t.KVBytes - t.KVSecond))
	m.secondBytes.Add(float64(t.KVSecond))
	m.topTokens.Add(float64(t.TopTokens))
	if t.Adoption > 0 {
		m.adoption.Observe(t.Adoption.Seconds())
	}
}

// routeLabel makes a reason written for people a label of few values: its first
// clause, with N for every number.
func routeLabel(reason string) string {
	clause, _, _ := strings.Cut(reason, ",")
	var b strings.Builder
	number := false
	for _, r := range clause {
		digit := r >= '0' && r <= '9'
		switch {
		case !digit:
			b.WriteRune(r)
		case !number:
			b.WriteByte('N')
		}
		number = digit
	}
	return b.String()
}

// finishedReason is vLLM's word for how a request ended.
func finishedReason(f terse.FinishReason, err error) string {
	switch {
	case err == nil:
		return string(f)
	case toAPIError(err).Status == statusClientGone:
		return "abort"
	}
	return "error"
}

// tokenMeter measures the tokens of one choice as they arrive.
type tokenMeter struct {
	m                  *metrics
	now                func() time.Time
	since, first, last time.Time
}

func (m *metrics) meter(since time.Time, now func() time.Time) *tokenMeter {
	return &tokenMeter{m: m, now: now, since: since}
}

// tokens notes n tokens that came together.
func (t *tokenMeter) tokens(n int) {
	now := t.now()
	t.m.generatedTokens.Add(float64(n))
	if t.first.IsZero() {
		t.first, t.last = now, now
		t.m.ttft.Observe(now.Sub(t.since).Seconds())
		return
	}
	gap := now.Sub(t.last).Seconds() / float64(n)
	for range n {
		t.m.interToken.Observe(gap)
		t.m.perToken.Observe(gap)
	}
	t.last = now
}

func (t *tokenMeter) elapsed() time.Duration { return t.now().Sub(t.since) }

func (t *tokenMeter) ttft() time.Duration {
	if t.first.IsZero() {
		return 0
	}
	return t.first.Sub(t.since)
}

func (t *tokenMeter) decode() time.Duration { return t.last.Sub(t.first) }

// memberCollector reads the workers' load when it is scraped.
type memberCollector struct {
	of                                Dispatcher
	running, waiting, usage, replicas *prometheus.Desc
}

func newMemberCollector(of Dispatcher) *memberCollector {
	return &memberCollector{
		of:       of,
		running:  prometheus.NewDesc("vllm:num_requests_running", "Requests in a batch, over all workers.", nil, nil),
		waiting:  prometheus.NewDesc("vllm:num_requests_waiting", "Requests queued at workers.", nil, nil),
		usage:    prometheus.NewDesc("vllm:kv_cache_usage_perc", "Part of the workers' KV memory in use, 0 to 1.", nil, nil),
		replicas: prometheus.NewDesc("terse_replicas", "Replicas of requests that others decode, over all workers.", nil, nil),
	}
}

// Describe implements [prometheus.Collector].
func (c *memberCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.running
	out <- c.waiting
	out <- c.usage
	out <- c.replicas
}

// Collect implements [prometheus.Collector].
func (c *memberCollector) Collect(out chan<- prometheus.Metric) {
	var running, waiting, replicas int
	var free, total int64
	for _, m := range c.of.Members() {
		running += m.Running
		waiting += m.Waiting
		replicas += len(m.Replicas)
		free += m.KVFree
		total += m.KVTotal
	}
	usage := 0.0
	if total > 0 {
		usage = 1 - float64(free)/float64(total)
	}
	out <- prometheus.MustNewConstMetric(c.running, prometheus.GaugeValue, float64(running))
	out <- prometheus.MustNewConstMetric(c.waiting, prometheus.GaugeValue, float64(waiting))
	out <- prometheus.MustNewConstMetric(c.usage, prometheus.GaugeValue, usage)
	out <- prometheus.MustNewConstMetric(c.replicas, prometheus.GaugeValue, float64(replicas))
}
