package workload

import (
	"bytes"
	"compress/gzip"
	"math"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRead(t *testing.T) {
	mooncake := `{"timestamp": 1500, "input_length": 1030, "output_length": 7, "hash_ids": [0, 1, 2]}
{"timestamp": 500, "input_length": 512, "output_length": 1, "hash_ids": [0]}
`
	f := func(name, text string, want Workload) {
		t.Helper()
		got, err := Read(strings.NewReader(text))
		require.NoError(t, err, name)
		want.BlockTokens = 512
		require.Equal(t, &want, got, name)

		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, err = z.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, z.Close())
		got, err = Read(&packed)
		require.NoError(t, err, name)
		require.Equal(t, &want, got, name)
	}
	f("Mooncake", mooncake, Workload{Arrivals: true, Requests: []Request{
		{At: 0, Input: 512, Output: 1, Blocks: []int64{0}},
		{At: time.Second, Input: 1030, Output: 7, Blocks: []int64{0, 1, 2}},
	}})
	f("Azure", "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.0319600,3180,8\r\n",
		Workload{Arrivals: true, Requests: []Request{{Input: 4808, Output: 10}, {At: 52 * time.Millisecond, Input: 3180, Output: 8}}})
	f("BurstGPT", "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n6,GPT-4,3,0,3,API log\n45.5,ChatGPT,1087,230,1317,Conversation log\n",
		Workload{Arrivals: true, Requests: []Request{{Input: 472, Output: 18}, {At: 40500 * time.Millisecond, Input: 1087, Output: 230}}})
	f("Vidur", "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n2588.0,291,2879,8.9\n", Workload{Requests: []Request{{Input: 2588, Output: 291}}})
}

func TestReadRefuses(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := Read(strings.NewReader(text))
		require.ErrorContains(t, err, want)
	}
	f("", "no requests")
	f("a,b\n1,2\n", "row 1: the head is none that is known")
	f("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1\n", "row 2: 2 fields where the head has 3")
	f("TIMESTAMP,ContextTokens,GeneratedTokens\n1823-11-16 18:17:03,1,1\n", "not in 2000")
	f("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1e30,1\n", "whole number")
	f("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,-4,1\n", "ContextTokens is -4")
	f("num_prefill_tokens,num_decode_tokens\nNaN,1\n", "whole number")
	f(`{"timestamp": 0, "input_length": 1030}`, "output_length is missing")
	f(`{"timestamp": -1, "input_length": 1030, "output_length": 1}`, "row 1: time")
	f(`{"timestamp": 0, "input_length": 1030, "output_length": 1, "hash_ids": [1]}`, "there must be 3")
	f(`{"timestamp": 0, "input_length": 99999999999, "output_length": 1}`, "input_length is 99999999999")
	f("{"+strings.Repeat(" ", maxLine), "not a trace")
}

func TestServeGen(t *testing.T) {
	dir := fstest.MapFS{
		"chunk-1-trace.csv":    {Data: []byte("0,1,1,,,\n600,2,1,Gamma,0.5,1\n")},
		"chunk-1-dataset.json": {Data: []byte(`{"0": {"input_tokens": "{10: 0.25, 30: 0.75}", "output_tokens": "{7: 1}"}, "700": {"input_tokens": "{}", "output_tokens": "{}"}}`)},
		"chunk-2-trace.csv":    {Data: []byte("600,3,1,Weibull,1,0.3333\n")},
		"chunk-2-dataset.json": {Data: []byte(`{"0": {"input_tokens": "{1000: 1}", "output_tokens": "{1: 1}"}}`)},
		"chunk-3-trace.csv":    {Data: []byte("600,3,1,Weibull,1,0.3333\n")}, // without lengths
	}
	w, err := ServeGen(dir, "x", ServeGenOptions{Start: 650 * time.Second, Duration: 2000 * time.Second})
	require.NoError(t, err)
	long, ten := 0, 0
	for i, r := range w.Requests {
		require.True(t, i == 0 || r.At >= w.Requests[i-1].At)
		switch r.Input {
		case 1000:
			long++
		case 10:
			ten++
		}
	}
	require.InDelta(t, 6000, long, 350)
	require.InDelta(t, 4000, len(w.Requests)-long, 350)
	require.InDelta(t, 0.25, float64(ten)/float64(len(w.Requests)-long), 0.03)

	slow, err := ServeGen(dir, "x", ServeGenOptions{Start: 650 * time.Second, Duration: 2000 * time.Second, Rate: 1})
	require.NoError(t, err)
	require.InDelta(t, 2000, len(slow.Requests), 200)

	_, err = ServeGen(dir, "x", ServeGenOptions{})
	require.ErrorContains(t, err, "choose another start")
	_, err = ServeGen(fstest.MapFS{}, "x", ServeGenOptions{})
	require.ErrorContains(t, err, "chunk-N-trace.csv")
}

func TestSynthetic(t *testing.T) {
	names, _ := Kinds()
	for i, name := range names {
		w, err := Synthetic(name, 4000, 1)
		require.NoError(t, err)
		sum := 0.0
		for _, r := range w.Requests {
			sum += float64(r.Input)
		}
		mean := kinds()[i].input.mean
		require.InDelta(t, mean, sum/4000, 0.08*mean, name)
	}
	_, err := Synthetic("chat", 1, 1)
	require.ErrorContains(t, err, "choose of classify, summarise, retrieve, complete")
}

func TestFixed(t *testing.T) {
	w, err := Fixed(2, 8000, 64)
	require.NoError(t, err)
	require.Equal(t, []Request{{Input: 8000, Output: 64}, {Input: 8000, Output: 64}}, w.Requests)
	_, err = Fixed(2, 0, 64)
	require.ErrorContains(t, err, "at least one")
}

func TestPoisson(t *testing.T) {
	w, err := Synthetic("complete", 5000, 1)
	require.NoError(t, err)
	require.NoError(t, w.Poisson(20, 7))
	require.InDelta(t, 250, w.Requests[4999].At.Seconds(), 15)
	require.NoError(t, w.Stretch(2))
	require.InDelta(t, 500, w.Requests[4999].At.Seconds(), 30)
	require.Error(t, w.Poisson(0, 7))
	require.Error(t, w.Stretch(math.NaN()))
}

func TestLimit(t *testing.T) {
	w := &Workload{Name: "x", BlockTokens: 512, Requests: []Request{
		{At: time.Second, Input: 1, Output: 1},
		{At: 2 * time.Second, Input: 2048, Output: 100, Blocks: []int64{1, 2, 3, 4}},
		{At: 4 * time.Second, Input: 100000, Output: 5000},
		{At: 5 * time.Second, Input: 7, Output: 7},
	}}
	cut, err := w.Limit(Limits{Skip: 1, Count: 2, Scale: 0.5, MaxInput: 900, MaxTokens: 1000})
	require.NoError(t, err)
	require.Equal(t, 2, cut)
	require.Equal(t, 256, w.BlockTokens)
	require.Equal(t, []Request{
		{Input: 900, Output: 50, Blocks: []int64{1, 2, 3, 4}},
		{At: 2 * time.Second, Input: 500, Output: 500},
	}, w.Requests)
	_, err = w.Limit(Limits{Skip: 2})
	require.ErrorContains(t, err, "leaves none")
}

func FuzzRead(f *testing.F) {
	for _, name := range []string{"mooncake.jsonl", "azure.csv"} {
		data, err := os.ReadFile("testdata/" + name)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte("num_prefill_tokens,num_decode_tokens\n12.0,1\n"))
	f.Add([]byte("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		checkWorkload(t, w)
	})
}

func FuzzServeGen(f *testing.F) {
	f.Add([]byte("600,2,1,Gamma,0.5,1\n"), []byte(`{"0": {"input_tokens": "{10: 0.25, 30: 0.75}", "output_tokens": "{7: 1}"}}`))
	f.Add([]byte("600,2,1,Weibull,0.01,1\n"), []byte(`{"0": {"text_tokens": "{10: 1}", "output_tokens": "{7: 1e-300}"}}`))
	f.Fuzz(func(t *testing.T, trace, lengths []byte) {
		dir := fstest.MapFS{"chunk-1-trace.csv": {Data: trace}, "chunk-1-dataset.json": {Data: lengths}}
		w, err := ServeGen(dir, "x", ServeGenOptions{Start: 10 * time.Minute, Duration: 10 * time.Second, Rate: 2})
		if err != nil {
			return
		}
		checkWorkload(t, w)
	})
}

func checkWorkload(t *testing.T, w *Workload) {
	t.Helper()
	for i, r := range w.Requests {
		if r.Input < 1 || r.Output < 1 || r.At < 0 || i > 0 && r.At < w.Requests[i-1].At || r.Input > maxTokens || r.Output > maxTokens {
			t.Fatal(i, r)
		}
	}
}
