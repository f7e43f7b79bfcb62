package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/terse-llm/terse/eval"
)

var full = flag.Bool("full", false, "measure again everything that docs/quality.md reports: an hour of a few cores")

// docs/quality.md is what terse eval printed, table and all: the reports that it
// was printed from are kept in testdata/eval, and a small one is measured again
// with every test.
func TestQualityDocument(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "quality.md"))
	if err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join("testdata", "eval", "*.json"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	for _, path := range tables {
		if table := readReport(t, path).Markdown(); !strings.Contains(string(doc), table) {
			t.Errorf("docs/quality.md does not have the table of %s, which is\n%s", path, table)
		}
	}
	for _, name := range []string{"recall.json", "recall-3072.json"} {
		if table := readReport(t, filepath.Join("testdata", "eval", name)).Depths(4); !strings.Contains(string(doc), table) {
			t.Errorf("docs/quality.md does not have the depths of %s, which are\n%s", name, table)
		}
	}
	if table := formatSummary(t); !strings.Contains(string(doc), table) {
		t.Errorf("docs/quality.md does not have the summary, which is\n%s", table)
	}
}

// formatSummary is the table that docs/quality.md begins with: of every format what the
// first of the reports says that has it.
func formatSummary(t *testing.T) string {
	t.Helper()
	var reports []*eval.Report
	for _, name := range []string{"texts", "budget", "recall", "recall-3072", "retrieval", "quote", "late", "late-others", "budget-tasks", "baselines", "important-texts", "important-tasks", "important-retrieval", "important-3072"} {
		reports = append(reports, readReport(t, filepath.Join("testdata", "eval", name+".json")))
	}
	tasks := []struct {
		name   string
		length int
	}{{"recall", 4096}, {"recall", 3072}, {"retrieval", 4096}, {"quote", 512}, {"late", 4096}}
	b := new(strings.Builder)
	fmt.Fprint(b, "| format | bits per element | wire | KL |")
	for _, task := range tasks {
		fmt.Fprintf(b, " %s@%d |", task.name, task.length)
	}
	fmt.Fprint(b, "\n|---|---|---|---|"+strings.Repeat("---|", len(tasks))+"\n")
	for _, format := range []string{"f16", "int8", "hq4", "hq3", "hq2b,important=6", "hq2+", "hq2b", "hq2", "cachegen", "kvquant,bits=4", "int4", "kivi", "kvquant", "hack:v2", "hack"} {
		row := make([]string, 3+len(tasks))
		keep := func(i int, text string) {
			if row[i] == "" {
				row[i] = text
			}
		}
		for _, r := range reports {
			for _, c := range r.Costs {
				if c.Format == format {
					keep(0, fmt.Sprintf("%.3f", c.Bits))
					keep(1, fmt.Sprintf("%.1f %%", 100*c.Wire))
				}
			}
			if kl, n := meanKL(r, format); n > 0 {
				keep(2, fmt.Sprintf("%.4f", kl))
			}
			for _, got := range r.Tasks {
				for i, task := range tasks {
					if got.Format == format && got.Task == task.name && got.Length == task.length {
						keep(3+i, fmt.Sprintf("%d/%d", got.Right, got.Cases))
					}
				}
			}
		}
		fmt.Fprintf(b, "| `%s` |", format)
		for _, cell := range row {
			fmt.Fprintf(b, " %s |", orElse(cell, "–"))
		}
		fmt.Fprintln(b)
	}
	return b.String()
}

// meanKL is a format's mean over the report's texts, and how many those are.
func meanKL(r *eval.Report, format string) (kl float64, n int) {
	for _, text := range r.Texts {
		for _, d := range text.Rows {
			if d.Format == format {
				kl, n = kl+d.KL, n+1
			}
		}
	}
	return kl / float64(max(n, 1)), n
}

// docs/report.md is what make report writes from the results that are kept.
func TestReportDocument(t *testing.T) {
	docs := filepath.Join("..", "..", "docs")
	results, out := filepath.Join(t.TempDir(), "results"), filepath.Join(t.TempDir(), "report.md")
	if err := os.CopyFS(results, os.DirFS(filepath.Join(docs, "results"))); err != nil {
		t.Fatal(err)
	}
	root := newRoot()
	root.SetArgs([]string{"bench", "report", filepath.Join(results, "report.md.tmpl"), "--results", results, "--evals", filepath.Join("testdata", "eval"), "--out", out})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	same := func(path, kept string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(kept)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its template and results give: run make report", kept)
		}
	}
	same(out, filepath.Join(docs, "report.md"))
	plots, err := filepath.Glob(filepath.Join(results, "*.svg"))
	if err != nil || len(plots) == 0 {
		t.Fatal(plots, err)
	}
	for _, path := range plots {
		same(path, filepath.Join(docs, "results", filepath.Base(path)))
	}
}

// The small report is measured again, and the large ones where asked.
func TestQualityReproduced(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute of computing")
	}
	f := func(name string, args ...string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "report.json")
		var out bytes.Buffer
		root := newRoot()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append([]string{"eval", "--json", path}, args...))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("terse eval %s: %v", strings.Join(args, " "), err)
		}
		got, want := readReport(t, path), readReport(t, filepath.Join("testdata", "eval", name))
		sameReport(t, got, want)
	}
	f("small.json", "--windows", "1", "--window", "1024", "--tasks", "none", "--kv", "hq4,hq3,hq2+,hq2,int8,int4,kivi,hack:v2,hack")
	if *full {
		const (
			hq  = "hq4,hq3,hq2+"
			hqs = hq + ",hq2"
			all = hqs + ",int8,int4,kivi,hack:v2,cachegen,kvquant,kvquant+bits=4"
		)
		f("texts.json", "--windows", "6", "--tasks", "none", "--kv", all+",hack")
		f("decoded.json", "--style", "decode", "--windows", "1", "--window", "1024", "--tasks", "none", "--kv", all+",hack")
		f("greedy.json", "--windows", "20", "--window", "640", "--agree", "64", "--tasks", "none", "--kv", all)
		f("important.json", "--windows", "2", "--from", "2048", "--tasks", "none", "--kv", "hq3,hq2b+important=6,hq2b,hq2+important=10,hq2")
		f("budget-2625.json", "--windows", "6", "--cases", "192", "--tasks", "recall@4096,quote@512", "--kv", "hq2b+budget=2.625")
		f("important-retrieval.json", "--texts", "none", "--cases", "192", "--tasks", "retrieval@4096", "--kv", "hq2b+important=6")
		f("important-texts.json", "--windows", "6", "--tasks", "none", "--kv", "hq2++important=10,hq2b+important=10,hq2b+important=6,hq2+basis=balanced+important=10,hq2+important=10")
		f("important-tasks.json", "--texts", "none", "--cases", "192", "--tasks", "recall@4096,quote@512", "--kv", "hq2++important=10,hq2b+important=10,hq2b+important=6,hq2+basis=balanced+important=10,hq2+important=10")
		f("retrieval.json", "--texts", "none", "--cases", "192", "--tasks", "retrieval", "--kv", hq)
		f("recall.json", "--texts", "none", "--cases", "192", "--tasks", "recall", "--kv", hqs)
		f("quote.json", "--texts", "none", "--cases", "192", "--tasks", "quote@512", "--kv", all)
		f("late.json", "--texts", "none", "--cases", "192", "--tasks", "late", "--kv", "hq4,int8,cachegen")
		f("important-3072.json", "--texts", "none", "--cases", "192", "--tasks", "recall@3072", "--kv", "hq2b+important=6,hq2b")
		f("late-others.json", "--texts", "none", "--cases", "192", "--tasks", "late", "--kv", "hq3,hq2b,hq2,int4,kivi,hack:v2,hq2+")
		f("recall-3072.json", "--texts", "none", "--cases", "192", "--tasks", "recall@3072", "--kv", "hq4,hq3,hq2+,hq2b,hq2,int8,int4,kivi,hack:v2,cachegen,kvquant,kvquant+bits=4")
		f("budget.json", "--windows", "6", "--tasks", "none", "--kv", "hq2+,hq2b")
		f("budget-tasks.json", "--texts", "none", "--cases", "192", "--tasks", "recall@4096,retrieval@4096,quote@512", "--kv", "hq2+,hq2b")
		for _, stress := range []string{"outliers", "bias"} {
			f(stress+".json", "--stress", stress, "--windows", "1", "--window", "1024", "--tasks", "none", "--kv",
				"hq4,hq3,hq2+,hq2b,hq2,hq2+rotate=off,hq2+mean=off,hq2+clip=off,hq2+rotate=off+mean=off,hq2+basis=balanced,int8,int4,kivi,cachegen,kvquant,hack:v2")
		}
	}
}

// Reports of texts and of tasks make one page, with speed from a report of bench
// serve, model or kernels.
func TestQualityPage(t *testing.T) {
	speed := func(text string) *eval.Speed {
		t.Helper()
		s, err := readSpeed([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	f := func(text, format string, want float64, title string) {
		t.Helper()
		if s := speed(text); s.Of[format] != want || !strings.Contains(s.Title, title) {
			t.Errorf("%s: %+v, want %g of %s and %q", text, s, want, format, title)
		}
	}
	f(`{"workload":"8000 in","rows":[{"target":"f16","jct_s":{"mean":2.5}},{"target":"hq2","jct_s":{"mean":1.5}}]}`, "hq2", 1.5, "8000 in")
	f(`{"model":"m","machine":{"cpu":"x"},"rows":[{"kv":"hq2","test":"decode","tokens":9,"median_ns":4e6},{"kv":"hq2","test":"decode","tokens":5,"median_ns":1e6},{"kv":"hq2","test":"prefill","tokens":99,"median_ns":7}]}`, "hq2", 4, "9 tokens")
	f(`{"rows":[{"name":"attend/decode/d=64/4K/hq2","ns_per_unit":3},{"name":"attend/decode/d=64/8K/hq2","ns_per_unit":5},{"name":"store/8K/hq2","ns_per_unit":9}]}`, "hq2", 5, "8K")
	for _, bad := range []string{"", "{}", `{"rows":[{"target":"f16"}]}`} {
		if _, err := readSpeed([]byte(bad)); err == nil {
			t.Errorf("%q has times", bad)
		}
	}

	page := qualityPage(t, filepath.Join("..", "..", "docs", "results", "long-r10.json"))
	if !strings.Contains(page, "Divergence against seconds of a mean request") || !strings.Contains(page, "recall@4096 against bits") {
		t.Errorf("the page lacks a plot: %.2000s", page)
	}
}

// qualityPage is the page of terse eval --html of reports that are kept, with the
// times of a report of terse bench serve.
func qualityPage(t *testing.T, speed string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "page.html")
	root := newRoot()
	root.SetOut(io.Discard)
	root.SetArgs([]string{"eval", "--html", out, "--speed", speed,
		"--merge", filepath.Join("testdata", "eval", "texts.json") + "," + filepath.Join("testdata", "eval", "recall.json")})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readReport(t *testing.T, path string) *eval.Report {
	t.Helper()
	r, err := readEvalReport(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sameReport allows for what another order of sums does: it turns a rounding
// here and there (the more, the worse a format is), and now and then an answer.
func sameReport(t *testing.T, got, want *eval.Report) {
	t.Helper()
	if len(got.Costs) != len(want.Costs) || len(got.Texts) != len(want.Texts) || len(got.Tasks) != len(want.Tasks) {
		t.Fatalf("%d formats, %d texts and %d tasks were measured, want %d, %d and %d",
			len(got.Costs), len(got.Texts), len(got.Tasks), len(want.Costs), len(want.Texts), len(want.Tasks))
	}
	near := func(what string, got, want, most float64) {
		t.Helper()
		if !(math.Abs(got-want) <= most) {
			t.Errorf("%s is %g, the document was made from %g", what, got, want)
		}
	}
	for i, w := range want.Costs {
		if got.Costs[i] != w {
			t.Errorf("the cost of %s is %+v, the document was made from %+v", w.Format, got.Costs[i], w)
		}
	}
	for i, w := range want.Texts {
		for j, d := range w.Rows {
			g, name := got.Texts[i].Rows[j], w.Text+" in "+d.Format
			near("log perplexity of "+name, math.Log(g.Perplexity), math.Log(d.Perplexity), 0.01+0.1*d.KL)
			near("KL of "+name, g.KL, d.KL, 0.1*d.KL)
			near("99th percentile of KL of "+name, g.KLp99, d.KLp99, 0.2*d.KLp99)
			near("top-1 agreement of "+name, g.Top1, d.Top1, 0.03)
		}
	}
	for i, w := range want.Tasks {
		near(w.Task+" in "+w.Format, float64(got.Tasks[i].Right), float64(w.Right), 0.08*float64(w.Cases))
	}
}
