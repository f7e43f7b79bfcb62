package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
)

// What is read can be written again and reads the same; everything else is an
// error, never a crash nor an allocation beyond the payload's measure.
func FuzzJob(f *testing.F) {
	now := time.Unix(1e9, 0)
	job := request(1, 300, 128_000)
	job.Prefill = &Target{WorkerID: "p", DataAddr: "h:1"}
	data, err := marshalJob(job, now)
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Add([]byte{protocol, kindJob, 2, '{', '}', 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{9, kindJob})
	f.Fuzz(func(t *testing.T, data []byte) {
		job, err := unmarshalJob(data, now)
		if err != nil {
			return
		}
		again, err := marshalJob(job, now)
		require.NoError(t, err)
		same, err := unmarshalJob(again, now)
		require.NoError(t, err)
		require.Equal(t, job.Request.Prompt, same.Request.Prompt)
		require.Equal(t, job.Attempt, same.Attempt)
	})
}

func FuzzOutput(f *testing.F) {
	for _, out := range []terse.Output{
		{Tokens: []terse.Token{5}},
		{Prompt: []terse.Scored{{Logprob: terse.Logprob{Token: 3, Logprob: -1}, Top: []terse.Logprob{{Token: 3, Logprob: -1}}}}},
		{Finish: terse.FinishError, Err: &terse.Error{Code: terse.CodeTransfer, Message: "m"}},
	} {
		data, err := appendOutput(nil, out)
		require.NoError(f, err)
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := unmarshalOutput(data)
		if err != nil {
			return
		}
		again, err := appendOutput(nil, out)
		require.NoError(t, err)
		same, err := unmarshalOutput(again)
		require.NoError(t, err)
		if out.Err == nil { // a long message is cut when it is written
			require.True(t, equalOutput(out, same))
		}
	})
}

func FuzzRecord(f *testing.F) {
	data, err := marshalRecord(decoder("d1"), false)
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"Protocol":1,"Member":{"ID":"a.b","Role":"decode"}}`))
	f.Add([]byte(`{"Protocol":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := unmarshalRecord(data)
		if err != nil {
			return
		}
		_, err = marshalRecord(rec.Member, rec.Gone)
		require.NoError(t, err)
	})
}
