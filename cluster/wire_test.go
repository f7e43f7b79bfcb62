package cluster

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/terse-llm/terse"
)

func drawTokens(t *rapid.T, label string) []terse.Token {
	list := rapid.SliceOf(rapid.Int32Range(0, math.MaxInt32)).Draw(t, label)
	if len(list) == 0 {
		return nil
	}
	tokens := make([]terse.Token, len(list))
	for i, v := range list {
		tokens[i] = terse.Token(v)
	}
	return tokens
}

func drawScored(t *rapid.T, label string, n int) []terse.Scored {
	var list []terse.Scored
	for range n {
		s := terse.Scored{Logprob: drawLogprob(t, label)}
		for range rapid.IntRange(0, 3).Draw(t, label+" top") {
			s.Top = append(s.Top, drawLogprob(t, label))
		}
		list = append(list, s)
	}
	return list
}

func drawLogprob(t *rapid.T, label string) terse.Logprob {
	return terse.Logprob{
		Token:   terse.Token(rapid.Int32Range(0, math.MaxInt32).Draw(t, label)),
		Logprob: rapid.OneOf(rapid.Float32(), rapid.Just(float32(math.Inf(-1)))).Draw(t, label),
	}
}

func TestJobRoundTrip(t *testing.T) {
	now := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		job := Job{
			Request: terse.Request{
				ID:         rapid.StringMatching(`[a-z0-9-]{1,20}`).Draw(t, "id"),
				Prompt:     drawTokens(t, "prompt"),
				MaxTokens:  rapid.Int().Draw(t, "max"),
				StopTokens: drawTokens(t, "stop"),
				Sampling: terse.Sampling{
					Temperature: rapid.Float32().Draw(t, "temperature"), Seed: rapid.Uint64().Draw(t, "seed"),
					LogitBias: map[terse.Token]float32{7: -100, 9: 0.1}, Logprobs: -1, PromptLogprobs: 3,
				},
			},
			Prefill: rapid.SampledFrom([]*Target{nil, {WorkerID: "p1", DataAddr: "10.0.0.1:9000"}}).Draw(t, "prefill"),
			Host:    64 * rapid.IntRange(0, 1).Draw(t, "host"),
			Attempt: rapid.IntRange(0, 5).Draw(t, "attempt"),
			Arrival: now.Add(-time.Duration(rapid.Int64Range(0, 1e12).Draw(t, "age"))),
			Route:   rapid.String().Draw(t, "route"),
		}
		data, err := marshalJob(job, now)
		require.NoError(t, err)
		if job.Host > 0 && job.Prefill == nil { // a replica of nobody's
			_, err := unmarshalJob(data, now)
			require.ErrorContains(t, err, "a replica of 64 tokens")
			return
		}
		got, err := unmarshalJob(data, now)
		require.NoError(t, err)
		require.True(t, job.Arrival.Equal(got.Arrival))
		got.Arrival = job.Arrival
		require.Equal(t, job, got)
	})
}

func TestJobCarriesAgeNotClock(t *testing.T) {
	sent := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	job := request(1, 2, 3)
	job.Arrival = sent.Add(-time.Second)
	data, err := marshalJob(job, sent)
	require.NoError(t, err)
	read := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC) // a clock far ahead
	got, err := unmarshalJob(data, read)
	require.NoError(t, err)
	require.Equal(t, time.Second, read.Sub(got.Arrival))
}

// The longest prompt that is promised fits the default limit of NATS.
func TestLongPromptFitsDefaultPayload(t *testing.T) {
	job := request(make([]terse.Token, 128<<10)...)
	for i := range job.Request.Prompt {
		job.Request.Prompt[i] = terse.Token(256_000 - i%1000)
	}
	data, err := marshalJob(job, time.Now())
	require.NoError(t, err)
	require.Less(t, len(data), 512<<10)
}

func TestOutputRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		out := terse.Output{
			Tokens: drawTokens(t, "tokens"),
			Scores: drawScored(t, "scores", rapid.IntRange(0, 3).Draw(t, "n")),
			Prompt: drawScored(t, "prompt", rapid.IntRange(0, 3).Draw(t, "n")),
			Finish: rapid.SampledFrom([]terse.FinishReason{"", terse.FinishStop, terse.FinishError}).Draw(t, "finish"),
			Usage:  rapid.SampledFrom([]*terse.Usage{nil, {PromptTokens: 3, CachedTokens: 1}}).Draw(t, "usage"),
			Timing: rapid.SampledFrom([]*terse.Timing{nil, {TTFT: time.Second, KVFormat: "hq3"}}).Draw(t, "timing"),
			Err:    rapid.SampledFrom([]*terse.Error{nil, {Code: terse.CodeTransfer, Message: "m"}}).Draw(t, "err"),
		}
		data, err := appendOutput(nil, out)
		require.NoError(t, err)
		got, err := unmarshalOutput(data)
		require.NoError(t, err)
		require.True(t, equalOutput(out, got), "%+v\n%+v", out, got)
	})
}

// equalOutput compares log-probabilities by bits, since NaN is one of them.
func equalOutput(a, b terse.Output) bool {
	bits := func(list []terse.Scored) (flat []uint64) {
		add := func(l terse.Logprob) {
			flat = append(flat, uint64(l.Token), uint64(math.Float32bits(l.Logprob)))
		}
		for _, s := range list {
			add(s.Logprob)
			flat = append(flat, uint64(len(s.Top)))
			for _, l := range s.Top {
				add(l)
			}
		}
		return flat
	}
	same := reflect.DeepEqual(bits(a.Scores), bits(b.Scores)) && reflect.DeepEqual(bits(a.Prompt), bits(b.Prompt))
	a.Scores, a.Prompt, b.Scores, b.Prompt = nil, nil, nil, nil
	return same && reflect.DeepEqual(a, b)
}

func TestNegativeTokensAreRefused(t *testing.T) {
	_, err := marshalJob(request(5, -1), time.Now())
	require.ErrorContains(t, err, "token -1")
	_, err = appendOutput(nil, terse.Output{Tokens: []terse.Token{-7}})
	require.ErrorContains(t, err, "token -7")
}

func TestLongErrorIsCut(t *testing.T) {
	out := terse.Output{Finish: terse.FinishError, Err: &terse.Error{Code: terse.CodeInternal, Message: strings.Repeat("\x01é", 1<<20)}}
	data, err := appendOutput(nil, out)
	require.NoError(t, err)
	require.Less(t, len(data), tailBytes)
	require.Len(t, out.Err.Message, 3<<20, "the sender's own error stays whole")
}

// Parts fit the limit and add up to the whole, in order, with the rest last.
func TestSplitOutput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "tokens")
		out := terse.Output{
			Tokens: ascending(n),
			Prompt: drawScored(t, "prompt", rapid.IntRange(0, 40).Draw(t, "prompts")),
			Finish: terse.FinishLength,
			Usage:  &terse.Usage{CompletionTokens: n},
		}
		if rapid.Bool().Draw(t, "scored") {
			out.Scores = drawScored(t, "scores", n)
		}
		limit := tailBytes + rapid.IntRange(60, 900).Draw(t, "room")
		parts, err := splitOutput(out, limit)
		require.NoError(t, err)
		var whole terse.Output
		for i, p := range parts {
			data, err := appendOutput(nil, p)
			require.NoError(t, err)
			require.LessOrEqual(t, len(data), limit)
			require.Equal(t, i == len(parts)-1, p.Finish != "")
			whole.Tokens = append(whole.Tokens, p.Tokens...)
			whole.Scores = append(whole.Scores, p.Scores...)
			whole.Prompt = append(whole.Prompt, p.Prompt...)
		}
		last := parts[len(parts)-1]
		whole.Finish, whole.Usage = last.Finish, last.Usage
		if n == 0 {
			out.Tokens = nil
		}
		require.True(t, equalOutput(out, whole))
	})
}

func TestSplitRefusesWhatCannotFit(t *testing.T) {
	huge := terse.Output{Tokens: []terse.Token{1}, Scores: []terse.Scored{{Top: make([]terse.Logprob, 1000)}}}
	_, err := splitOutput(huge, tailBytes+1000)
	require.ErrorContains(t, err, "fewer alternatives")
	_, err = splitOutput(terse.Output{Tokens: ascending(2), Scores: make([]terse.Scored, 1)}, tailBytes+1000)
	require.ErrorContains(t, err, "2 tokens and 1 scores")
}
