package eval

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// part is a small report with one format beside f16.
func part(format string) *Report {
	rows := func(scale float64) []*Divergence {
		return []*Divergence{
			{Format: "f16", Tokens: 10, Perplexity: 10 * scale, Top1: 1},
			{Format: format, Tokens: 10, Perplexity: 11 * scale, KL: 0.01 * scale, KLp99: 0.1 * scale, Top1: 0.9},
		}
	}
	return &Report{
		Model: "m", Windows: 1, Window: 64, From: 8,
		Costs: []Cost{{"f16", 16, 1}, {format, 2.25, 0.2}},
		Texts: []TextResult{{"a", rows(1)}, {"b", rows(3)}},
		Tasks: []TaskResult{{"recall", "f16", 512, 4, 4}, {"recall", format, 512, 4, 3}},
	}
}

func TestMarkdown(t *testing.T) {
	const want = "" +
		"| format | bits per element | wire    | perplexity a / b | KL     | KL p99 | top-1 | recall@512 |\n" +
		"|--------|------------------|---------|------------------|--------|--------|-------|------------|\n" +
		"| `f16`  | 16.000           | 100.0 % | 10.00 / 30.00    | 0.0000 | 0.000  | 1.000 | 4/4        |\n" +
		"| `hq2`  | 2.250            | 20.0 %  | 11.00 / 33.00    | 0.0200 | 0.200  | 0.900 | 3/4        |\n"
	if got := part("hq2").Markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	r := part("hq2")
	r.Texts, r.Tasks = nil, nil
	if got := r.Markdown(); !strings.HasPrefix(got, "| format | bits per element | wire    |\n") {
		t.Errorf("a report without texts and tasks is\n%s", got)
	}
}

// Two runs with a format each are one run with both.
func TestMergeFormats(t *testing.T) {
	r := part("hq2")
	if err := r.Merge(part("hq3")); err != nil {
		t.Fatal(err)
	}
	if len(r.Costs) != 3 || len(r.Texts) != 2 || len(r.Texts[0].Rows) != 3 || len(r.Tasks) != 3 {
		t.Errorf("merged to\n%s", r.Markdown())
	}
	if !strings.Contains(r.Markdown(), "| `hq3`  | 2.250            | 20.0 %  | 11.00 / 33.00    | 0.0200 | 0.200  | 0.900 | 3/4        |") {
		t.Errorf("hq3 is not in\n%s", r.Markdown())
	}
}

func TestMergeParts(t *testing.T) {
	whole, texts, tasks := part("hq2"), part("hq2"), part("hq2")
	texts.Tasks, tasks.Texts = nil, nil
	if err := texts.Merge(tasks); err != nil {
		t.Fatal(err)
	}
	if texts.Markdown() != whole.Markdown() {
		t.Errorf("merged to\n%s\nwant\n%s", texts.Markdown(), whole.Markdown())
	}
}

func TestMergeRefuses(t *testing.T) {
	f := func(change func(r *Report), want string) {
		t.Helper()
		o := part("hq3")
		change(o)
		if err := part("hq2").Merge(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	f(func(r *Report) { r.Model = "n" }, "different models")
	f(func(r *Report) { r.Calibration = "77" }, "different models")
	f(func(r *Report) { r.From = 9 }, "different windows")
	f(func(r *Report) { r.Texts[0].Rows[1].Format = "hq2" }, "both have format hq2 on text a")
	f(func(r *Report) { r.Tasks[1].Format = "hq2" }, "both have format hq2 in task recall@512")
}

// What a merged report lacks is marked, not made up.
func TestMissing(t *testing.T) {
	r, o := part("hq2"), part("hq3")
	o.Texts, o.Tasks = nil, nil
	if err := r.Merge(o); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(r.Markdown(), "\n")
	if got := strings.Count(lines[4], missing); got != 5 {
		t.Errorf("%d cells are marked as missing, want 5: %s", got, lines[4])
	}
}

func TestReportFile(t *testing.T) {
	var b bytes.Buffer
	if err := part("hq2").JSON(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	r, err := ReadReport(&b)
	if err != nil {
		t.Fatal(err)
	}
	if r.Markdown() != part("hq2").Markdown() {
		t.Errorf("the file reads as\n%s", r.Markdown())
	}
	if _, err := ReadReport(strings.NewReader(strings.Replace(text, "Windows", "Widows", 1))); err == nil {
		t.Error("a file with another field reads as a report")
	}
}

// The table of docs/quality.md is what the command prints of docs/quality.json.
func TestPublishedTable(t *testing.T) {
	docs := filepath.Join("..", "docs")
	f, err := os.Open(filepath.Join(docs, "quality.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := ReadReport(f)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(docs, "quality.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), r.Markdown()) {
		t.Errorf("docs/quality.md does not have the table of docs/quality.json (terse eval --merge docs/quality.json):\n%s", r.Markdown())
	}
}
