package eval

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// The page is well-formed, loads nothing, and shows what the report has.
func TestPage(t *testing.T) {
	r := &Report{Model: "a<b>&", Costs: []Cost{{"f16", 16, 1}, {"hq2<", 2.25, 0.2}},
		Texts: []TextResult{{Text: "t", Rows: []*Divergence{{Format: "f16"}, {Format: "hq2<", KL: 0.03, Margin: &Margin{KL: 0.01}}}}},
		Tasks: []TaskResult{
			{Task: "recall", Format: "f16", Length: 20, Cases: 2, Right: 2, Scores: []float64{1, 1}, Depths: []float64{0.1, 0.9}},
			{Task: "recall", Format: "hq2<", Length: 20, Cases: 2, Right: 1, Scores: []float64{1, 0}, Depths: []float64{0.1, 0.9}},
			{Task: "file", Metric: "edit", Format: "f16", Cases: 2, Scores: []float64{0.5, 0.25}},
		}}
	f := func(speed *Speed, drawings, points int) {
		t.Helper()
		var b bytes.Buffer
		if err := r.HTML(&b, speed); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		for _, no := range []string{"<script", "src=", "href=", "url(", "@import"} {
			if strings.Contains(text, no) {
				t.Errorf("the page has %s", no)
			}
		}
		if n := strings.Count(text, "http"); n != strings.Count(text, `xmlns="http://www.w3.org/2000/svg"`) {
			t.Errorf("the page names %d addresses", n)
		}
		count := map[string]int{}
		d := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(text, "<!doctype html>")))
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := token.(xml.StartElement); ok {
				count[e.Name.Local]++
			}
		}
		if count["svg"] != drawings || count["circle"] != points || count["tr"] != 3 {
			t.Errorf("%d drawings with %d points and %d rows, want %d, %d and 3", count["svg"], count["circle"], count["tr"], drawings, points)
		}
	}
	f(nil, 3+1, 4)                                                                  // KL by bits (f16's is nothing), recall, file; one heat map
	f(&Speed{Title: "x", Unit: "s", Of: map[string]float64{"hq2<": 1}}, 3+1+2, 4+2) // KL and recall of hq2
	r.Tasks = append(r.Tasks, TaskResult{Task: "recall", Format: "f16", Length: 10, Cases: 1, Scores: []float64{0}, Depths: []float64{1}})
	f(nil, 4+2, 5) // recall at the other length; heat maps by length for each format
}
