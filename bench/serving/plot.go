package serving

import (
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/terse-llm/terse/internal/plot"
)

// Title says what was replayed, where, and over which link.
func (r *Report) Title() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d requests, %s", r.Workload, r.count(), r.Load)
	if r.Model != "" {
		fmt.Fprintf(&b, "; model %s", r.Model)
	}
	if r.Link != "" {
		fmt.Fprintf(&b, "; link %s", r.Link)
	}
	if r.Machine != "" {
		fmt.Fprintf(&b, "\n%s", r.Machine)
	}
	return b.String()
}

func (r *Report) count() int {
	if len(r.Rows) == 0 {
		return 0
	}
	return r.Rows[0].Requests
}

// part is a segment of a bar.
type part struct {
	name, colour string
	of           func(*Parts) float64
}

func parts() []part {
	return []part{
		{"queue", "#b0b0b0", func(p *Parts) float64 { return p.Queue }},
		{"prefill", "#4e79a7", func(p *Parts) float64 { return p.Prefill }},
		{"quantise", "#b07aa1", func(p *Parts) float64 { return p.Quantise }},
		{"transfer", "#e15759", func(p *Parts) float64 { return p.Transfer }},
		{"wait", "#edc948", func(p *Parts) float64 { return p.Wait }},
		{"attention", "#f28e2b", func(p *Parts) float64 { return p.Attend }},
		{"decode's rest", "#59a14f", func(p *Parts) float64 { return max(0, p.Decode-p.Attend) }},
	}
}

// Bars draws where the time of a mean request went, a bar a target, as SVG.
func (r *Report) Bars() string {
	const width, left, right, row, top = 760, 150, 70, 26, 44
	longest := 0.0
	for _, x := range r.Rows {
		longest = max(longest, x.JCT.Mean)
	}
	height := top + row*len(r.Rows) + 10
	var b strings.Builder
	plot.Open(&b, width, height)
	x := left - 90
	for _, p := range parts() {
		fmt.Fprintf(&b, `<rect x="%d" y="10" width="10" height="10" fill="%s"/><text x="%d" y="19">%s</text>`, x, p.colour, x+14, p.name)
		x += 90
	}
	for i, target := range r.Rows {
		y := top + row*i
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+13, template.HTMLEscapeString(target.Target))
		at := float64(left)
		scale := float64(width-left-right) / max(longest, 1e-9)
		if target.Parts == nil {
			fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="18" fill="#999"/>`, left, y, target.JCT.Mean*scale)
		} else {
			for _, p := range parts() {
				w := p.of(target.Parts) * scale
				fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="18" fill="%s"/>`, at, y, w, p.colour)
				at += w
			}
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`, float64(left)+target.JCT.Mean*scale+6, y+13, clock(target.JCT.Mean))
	}
	plot.Close(&b)
	return b.String()
}

// Scatter draws every request's JCT over its prompt's length, as SVG.
func (r *Report) Scatter() string {
	const width, height, left, bottom, right, top = 760, 360, 60, 40, 150, 10
	longest, most := 0.0, 0
	for _, o := range r.Requests {
		longest, most = max(longest, o.JCT), max(most, o.Input)
	}
	px := func(n int) float64 { return left + float64(n)/float64(max(most, 1))*(width-left-right) }
	py := func(s float64) float64 { return height - bottom - s/max(longest, 1e-9)*(height-bottom-top) }
	var b strings.Builder
	plot.Open(&b, width, height)
	fmt.Fprintf(&b, `<path d="M%d %d V%d H%d" fill="none" stroke="#888"/>`, left, top, height-bottom, width-right)
	for _, tick := range plot.Ticks(longest) {
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`, left-6, py(tick)+4, clock(tick))
	}
	for _, tick := range plot.Ticks(float64(most)) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%.0f</text>`, px(int(tick)), height-bottom+16, tick)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">prompt tokens</text>`, (left+width-right)/2, height-6)
	for i, row := range r.Rows {
		fmt.Fprintf(&b, `<circle cx="%d" cy="%d" r="4" fill="%s"/><text x="%d" y="%d">%s</text>`, width-right+14, top+10+18*i, plot.Palette(i), width-right+24, top+14+18*i,
			template.HTMLEscapeString(row.Target))
		for _, o := range r.Requests {
			if o.Target == row.Target && o.Error == "" {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s" fill-opacity="0.75"/>`, px(o.Input), py(o.JCT), plot.Palette(i))
			}
		}
	}
	plot.Close(&b)
	return b.String()
}

// page is self-contained: nothing is loaded from elsewhere.
const page = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>terse bench serve: {{.Report.Workload}}</title>
<style>` + plot.Style + `</style>
<h1>{{.Report.Workload}}</h1>
<pre>{{.Report.Title}}</pre>
<h2>Where the time of a mean request went</h2>
<div class="scroll">{{.Bars}}</div>
<h2>JCT by length of the prompt</h2>
<div class="scroll">{{.Scatter}}</div>
<h2>Figures</h2>
<div class="scroll"><table><tr><th></th><th>JCT mean</th><th>p50</th><th>p99</th><th>TTFT mean</th><th>TPOT mean</th><th>KV of float16</th><th>requests</th><th>failed</th></tr>
{{range .Report.Rows}}<tr><td>{{.Target}}</td><td>{{clock .JCT.Mean}}</td><td>{{clock .JCT.P50}}</td><td>{{clock .JCT.P99}}</td><td>{{clock .TTFT.Mean}}</td><td>{{clock .TPOT.Mean}}</td><td>{{printf "%.1f %%" (percent .KVShare)}}</td><td>{{.Requests}}</td><td>{{.Failed}}</td></tr>
{{end}}</table></div></html>
`

// HTML writes the report as one page with its plots.
func (r *Report) HTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{"clock": clock, "percent": func(x float64) float64 { return 100 * x }}).Parse(page)
	if err != nil {
		return fmt.Errorf("BUG: %w", err)
	}
	// The plots escape the only text from outside, the targets' names.
	return t.Execute(w, struct {
		Report        *Report
		Bars, Scatter template.HTML
	}{r, template.HTML(r.Bars()), template.HTML(r.Scatter())})
}
