package serving

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"text/template"

	"github.com/stretchr/testify/require"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/workload"
)

// fake is an OpenAI server that says "a " as often as asked and remembers the
// prompts.
type fake struct {
	mu      sync.Mutex
	prompts []string
	most    int // requests at a time
	running int
	broken  func(prompt string) bool
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/models") {
		_, _ = io.WriteString(w, `{"data":[{"id":"tiny"}]}`)
		return
	}
	var in struct {
		Model     string
		Prompt    json.RawMessage
		MaxTokens int  `json:"max_tokens"`
		IgnoreEOS bool `json:"ignore_eos"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Model != "tiny" || !in.IgnoreEOS || r.Header.Get("Authorization") != "Bearer key" {
		http.Error(w, fmt.Sprint("no: ", err, in), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.prompts = append(f.prompts, string(in.Prompt))
	f.running++
	f.most = max(f.most, f.running)
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.running--; f.mu.Unlock() }()
	for range in.MaxTokens {
		fmt.Fprint(w, "data: {\"choices\":[{\"text\":\"a \"}]}\n\n")
		w.(http.Flusher).Flush()
	}
	if f.broken != nil && f.broken(string(in.Prompt)) {
		fmt.Fprint(w, "data: {\"error\":{\"message\":\"a worker died\"}}\n\n")
		return
	}
	fmt.Fprintf(w, "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n")
	fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"prompt_tokens_details\":{\"cached_tokens\":1}},"+
		"\"terse\":{\"prefill_ms\":20,\"transfer_ms\":5,\"decode_ms\":8,\"attend_ms\":6,\"pack_ms\":4,\"unpack_ms\":3,\"kv_bytes\":25,\"kv_bytes_f16\":100}}\n\ndata: [DONE]\n\n", strings.Count(string(in.Prompt), ",")+1, in.MaxTokens)
}

func start(t *testing.T, f *fake, name string) Target {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return Target{Name: name, URL: s.URL + "/v1", Key: "key", Model: "tiny", HeldKV: func() int64 { return 77 }}
}

func someText(n int) *Prompts {
	source := make([]terse.Token, n)
	for i := range source {
		source[i] = terse.Token(i)
	}
	return &Prompts{Source: source, Seed: 3}
}

// Every target gets the same requests once, in rounds.
func TestRun(t *testing.T) {
	a, b := &fake{}, &fake{}
	w := &workload.Workload{Name: "w", BlockTokens: 512}
	for i := range 7 {
		w.Requests = append(w.Requests, workload.Request{Input: 10 + i, Output: 1 + i})
	}
	r, err := Run(t.Context(), Options{Targets: []Target{start(t, a, "f16"), start(t, b, "hq2")}, Workload: w, Prompts: someText(1000), Rounds: 3, Concurrency: 2})
	require.NoError(t, err)
	require.Equal(t, a.prompts[:2], b.prompts[:2]) // warm-up
	require.ElementsMatch(t, a.prompts, b.prompts)
	require.Len(t, r.Requests, 14)
	require.LessOrEqual(t, a.most, 2)
	rounds := map[int]int{}
	for _, o := range r.Requests {
		require.Empty(t, o.Error)
		require.Equal(t, 10+o.Number, o.Input)
		require.Equal(t, 1+o.Number, o.Output)
		require.Len(t, o.Gaps, o.Number)
		require.LessOrEqual(t, o.TTFT, o.JCT)
		rounds[o.Round]++
	}
	require.Equal(t, map[int]int{0: 4, 1: 4, 2: 6}, rounds)
	row := r.Rows[1]
	require.Equal(t, "hq2", row.Target)
	require.InDelta(t, 13, row.Input, 1e-9)
	require.InDelta(t, 1, row.Cached, 1e-9)
	require.InDelta(t, 0.25, row.KVShare, 1e-9)
	require.InDelta(t, 0.02, row.Parts.Prefill, 1e-9)
	require.InDelta(t, 0.008, row.Parts.Decode, 1e-9)
	require.InDelta(t, 0.006, row.Parts.Attend, 1e-9)
	require.InDelta(t, 0.004, row.Parts.Pack, 1e-9)
	require.InDelta(t, 0.003, row.Parts.Unpack, 1e-9)
	require.InDelta(t, 1, row.Split, 1e-9)
	require.EqualValues(t, 77, row.PeakKV)

	r.Judge(SLO{})
	require.InDelta(t, 1, r.Rows[0].Good, 0)
	require.Positive(t, r.Rows[0].Goodput)
	r.Judge(SLO{TTFT: 1e-12})
	require.Zero(t, r.Rows[0].Good)
	checkForms(t, r)
}

// checkForms writes the report in all its forms.
func checkForms(t *testing.T, r *Report) {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, r.JSON(&b))
	again, err := ReadReport(&b)
	require.NoError(t, err)
	require.Equal(t, r.Rows, again.Rows)
	require.Equal(t, r.Markdown(), again.Markdown())
	require.Contains(t, r.Markdown(), "| `hq2` |")
	b.Reset()
	require.NoError(t, r.CSV(&b))
	require.Equal(t, len(r.Requests)+1, strings.Count(b.String(), "\n"))
	b.Reset()
	r.Rows[0].Target = "<script>"
	require.NoError(t, r.HTML(&b))
	require.NotContains(t, b.String(), "<script>")
	require.Equal(t, 2, strings.Count(b.String(), "<svg"))
}

// A failed request is counted and does not end the run; a dead endpoint does.
func TestRunFailures(t *testing.T) {
	f := &fake{}
	w := &workload.Workload{Name: "w", Arrivals: true, BlockTokens: 512, Requests: []workload.Request{{Input: 5, Output: 2}, {Input: 6, Output: 2}}}
	f.broken = func(prompt string) bool { return strings.Count(prompt, ",") == 4 && len(f.prompts) > 2 }
	r, err := Run(t.Context(), Options{Targets: []Target{start(t, f, "f16")}, Workload: w, Prompts: someText(1000)})
	require.NoError(t, err)
	require.Equal(t, 1, r.Rows[0].Failed)
	require.Contains(t, r.Requests[0].Error, "a worker died")
	require.Contains(t, r.Markdown(), "(1 of 2 failed)")

	dead := Target{Name: "dead", URL: "http://127.0.0.1:1/v1"}
	_, err = Run(t.Context(), Options{Targets: []Target{dead}, Workload: w, Prompts: someText(10)})
	require.ErrorContains(t, err, "cannot measure dead")

	w.Arrivals = false
	_, err = Run(t.Context(), Options{Targets: []Target{dead}, Workload: w, Prompts: someText(10)})
	require.ErrorContains(t, err, "no arrivals")
}

func TestFirstModel(t *testing.T) {
	target := start(t, &fake{}, "x")
	name, err := FirstModel(t.Context(), http.DefaultClient, &target)
	require.NoError(t, err)
	require.Equal(t, "tiny", name)
}

// Prompts begin alike exactly as far as their blocks do.
func TestPrompts(t *testing.T) {
	p := someText(5000)
	of := func(n int, blocks ...int64) []terse.Token {
		return p.Of(n, &workload.Request{Input: 100*len(blocks) + 50, Blocks: blocks}, 100)
	}
	common := func(a, b []terse.Token) int {
		n := 0
		for n < min(len(a), len(b)) && a[n] == b[n] {
			n++
		}
		return n
	}
	a := of(0, 1, 2, 3)
	require.Len(t, a, 350)
	require.Equal(t, 300, common(a, of(1, 1, 2, 3)))
	require.Equal(t, 200, common(a, of(2, 1, 2, 4)))
	require.Equal(t, 0, common(a, of(3, 2, 1, 3)))
	require.Equal(t, a, of(0, 1, 2, 3))
	one, two := p.Of(4, &workload.Request{Input: 40}, 100), p.Of(5, &workload.Request{Input: 40}, 100)
	require.Len(t, one, 40)
	require.Equal(t, 0, common(one, two))
}

func TestSpread(t *testing.T) {
	s := spreadOf([]float64{4, 1, 3, 2})
	require.InDeltaSlice(t, []float64{2.5, 2.5, 3.97}, []float64{s.Mean, s.P50, s.P99}, 1e-9)
	require.Equal(t, Spread{}, spreadOf(nil))
}

func TestDocument(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, (&Report{Version: "v1", Workload: "w", Load: "1 at a time", Rows: []Row{
		{Target: "f16", JCT: Spread{Mean: 10}, KVShare: 1, Split: 1}, {Target: "hq2", JCT: Spread{Mean: 2.5}, KVShare: 0.181, KVBytes: 1e9, TransferWhole: 2},
	}}).JSON(&b))
	results := fstest.MapFS{"r10.json": {Data: b.Bytes()}}
	doc, plots, err := Document(results, `{{cut "r10" "hq2" "f16"}} {{jct "r10" "hq2"}} {{share "r10" "hq2"}} {{split "r10" "f16"}} {{carried "r10" "hq2"}} {{commit "r10"}} {{more}} {{plot "r10"}}`,
		template.FuncMap{"more": func() string { return "and more" }})
	require.NoError(t, err)
	require.Equal(t, "−75 % 2.50 s 18.1 % 100 % 4 Gb/s v1 and more ![where the time went: r10](results/r10.svg)", doc)
	require.Contains(t, plots["r10.svg"], "</svg>")
	for _, bad := range []string{`{{table "r11"}}`, `{{cut "r10" "hq3" "f16"}}`, `{{table}}`, `{{table "../r10"}}`, `{{carried "r10" "f16"}}`} {
		_, _, err := Document(results, bad, nil)
		require.Error(t, err, bad)
	}
}
