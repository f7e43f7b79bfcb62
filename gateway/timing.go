package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"time"
	"unicode/utf8"

	"github.com/terse-llm/terse"
)

// timingHeader names the header of plain and the trailer of streamed answers.
const timingHeader = "X-Terse-Timing"

// timingReport says where a request's time went and what moved, to clients and
// in the log. Times are milliseconds. The parts from queue to decode do not
// overlap and add up to about jct; ttft and transfer_total do overlap them.
type timingReport struct {
	JCT           float64 `json:"jct_ms"`
	Queue         float64 `json:"queue_ms"`
	Prefill       float64 `json:"prefill_ms"`
	Quantise      float64 `json:"quantise_ms"`
	Transfer      float64 `json:"transfer_ms"`
	Wait          float64 `json:"wait_ms"`
	Decode        float64 `json:"decode_ms"`
	Attend        float64 `json:"attend_ms"` // of decode
	TTFT          float64 `json:"ttft_ms"`
	TransferTotal float64 `json:"transfer_total_ms"`
	Pack          float64 `json:"pack_ms"`   // of a core, range-coding KV (cachegen), beside prefill and transfer
	Unpack        float64 `json:"unpack_ms"` // and decoding it
	KVFormat      string  `json:"kv_format"`
	KVBytes       int64   `json:"kv_bytes"`
	KVSecond      int64   `json:"kv_bytes_second"`  // of them, second planes that came apart from the rest
	KVHeld        int64   `json:"kv_bytes_held"`    // not moved: the decode worker had them
	KVExposed     int64   `json:"kv_bytes_exposed"` // of them, not there when the prompt was computed
	KVBytesF16    int64   `json:"kv_bytes_f16"`
	Route         string  `json:"route"`
	Expected      float64 `json:"ttft_expected_ms"` // by routing; 0 where it had not measured enough
	PrefillWorker string  `json:"prefill_worker"`
	DecodeWorker  string  `json:"decode_worker"`
	Planes        string  `json:"planes"`           // why second planes came apart from the rest, or with it; empty where nothing was split
	TopTokens     int     `json:"top_plane_tokens"` // computed while some second planes were not read
	Adoption      float64 `json:"adoption_ms"`      // from the first token until all were read; 0 where some never were
	Replayed      int     `json:"replayed_tokens"`  // from behind which another decode worker went on
	Recovered     int     `json:"recovered_tokens"` // that came from a replica and were not computed again for it
	Retries       int     `json:"retries"`
}

// millis keeps three places: more is noise.
func millis(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}

// newTimingReport reports the slowest choice, which is what the client waited
// for, with the bytes and retries of all.
func newTimingReport(results []choiceResult, jct time.Duration) timingReport {
	var slowest terse.Timing
	var longest time.Duration
	var bytes, second, held, exposed, bytesF16 int64
	retries, replayed, recovered, top := 0, 0, 0, 0
	for _, r := range results {
		if r.jct >= longest {
			slowest, longest = r.timing, r.jct
		}
		bytes += r.timing.KVBytes
		second += r.timing.KVSecond
		top += r.timing.TopTokens
		held += r.timing.KVBytesHeld
		exposed += r.timing.KVExposed
		bytesF16 += r.timing.KVBytesF16
		retries += r.timing.Retries
		replayed += r.timing.Replayed
		recovered += r.timing.Recovered
	}
	return timingReport{
		JCT: millis(jct), Queue: millis(slowest.Queue), Prefill: millis(slowest.Prefill),
		Quantise: millis(slowest.Quantise), Transfer: millis(slowest.Transfer), Wait: millis(slowest.Wait),
		Decode: millis(slowest.Decode), Attend: millis(slowest.Attend), TTFT: millis(slowest.TTFT), TransferTotal: millis(slowest.TransferTotal),
		Pack: millis(slowest.Pack), Unpack: millis(slowest.Unpack), KVFormat: slowest.KVFormat, KVBytes: bytes, KVSecond: second, KVHeld: held, KVExposed: exposed, KVBytesF16: bytesF16, Route: slowest.Route, Expected: millis(slowest.Expected),
		PrefillWorker: slowest.PrefillWorker, DecodeWorker: slowest.DecodeWorker,
		Planes: slowest.Planes, TopTokens: top, Adoption: millis(slowest.Adoption), Replayed: replayed, Recovered: recovered, Retries: retries,
	}
}

// header is the report as one line of ASCII JSON.
func (r timingReport) header() string {
	return asciiJSON(encodeJSON(r))
}

// asciiJSON escapes what HTTP does not let into a header.
func asciiJSON(data []byte) string {
	out := make([]byte, 0, len(data))
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case r < utf8.RuneSelf:
			out = append(out, byte(r))
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		data = data[size:]
	}
	return string(out)
}

// encodeJSON writes v without a line end, and with <, > and & as they are:
// answers are never part of a page, and people read them.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("BUG: cannot marshal an answer of type %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// logRequest writes the one line of a request.
func (s *Server) logRequest(x *exchange) {
	usage, report := x.usage(), x.report
	attrs := []slog.Attr{
		slog.String("id", x.id), slog.String("endpoint", x.endpoint), slog.String("model", x.model),
		slog.Int("status", x.status), slog.String("finish", x.finish()), slog.Int("choices", len(x.tasks)),
		slog.Int("prompt_tokens", usage.PromptTokens), slog.Int("cached_tokens", usage.CachedTokens),
		slog.Int("completion_tokens", usage.CompletionTokens),
		slog.Float64("jct_ms", report.JCT), slog.Float64("queue_ms", report.Queue),
		slog.Float64("prefill_ms", report.Prefill), slog.Float64("quantise_ms", report.Quantise),
		slog.Float64("transfer_ms", report.Transfer), slog.Float64("wait_ms", report.Wait),
		slog.Float64("decode_ms", report.Decode), slog.Float64("attend_ms", report.Attend), slog.Float64("pack_ms", report.Pack), slog.Float64("unpack_ms", report.Unpack), slog.Float64("ttft_ms", report.TTFT),
		slog.Float64("transfer_total_ms", report.TransferTotal),
		slog.String("kv_format", report.KVFormat), slog.Int64("kv_bytes", report.KVBytes), slog.Int64("kv_bytes_exposed", report.KVExposed),
		slog.Int64("kv_bytes_second", report.KVSecond), slog.Int64("kv_bytes_held", report.KVHeld),
		slog.Int64("kv_bytes_f16", report.KVBytesF16), slog.String("route", report.Route), slog.Float64("ttft_expected_ms", report.Expected),
		slog.String("prefill_worker", report.PrefillWorker), slog.String("decode_worker", report.DecodeWorker),
		slog.String("planes", report.Planes), slog.Int("top_plane_tokens", report.TopTokens), slog.Float64("adoption_ms", report.Adoption),
		slog.Int("replayed_tokens", report.Replayed), slog.Int("recovered_tokens", report.Recovered), slog.Int("retries", report.Retries),
	}
	level := slog.LevelInfo
	if x.err != nil {
		attrs = append(attrs, slog.String("error", x.err.Error()))
		if x.status >= 500 {
			level = slog.LevelError
		}
	}
	s.log.LogAttrs(context.Background(), level, "request", attrs...)
}
