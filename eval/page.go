package eval

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"

	"github.com/terse-llm/terse/internal/plot"
)

// Speed is how long something took in each format.
type Speed struct {
	Title string // what was measured, where
	Unit  string // of the times
	Of    map[string]float64
}

// depthBins is how many parts of a text a page's heat maps tell apart.
const depthBins = 5

// page is self-contained: nothing is loaded from elsewhere.
const page = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"/><title>terse eval: {{.Report.Model}}</title>
<style>body{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}.scroll{overflow-x:auto}</style></head>
<body><h1>What KV formats cost in quality: {{.Report.Model}}</h1>
<p>{{with .Report.Calibration}}Calibration {{.}}. {{else}}No calibration. {{end}}Intervals are of 95 %.{{with .Speed}} Speed: {{.Title}}.{{end}}</p>
{{range .Plots}}<h2>{{.Title}}</h2>
{{.Drawing}}
{{end}}{{range .Heats}}<h2>{{.Title}}</h2>
{{.Drawing}}
{{end}}<h2>Figures</h2>
<div class="scroll"><table>{{range $i, $row := .Table}}<tr>{{range $row}}{{if $i}}<td>{{.}}</td>{{else}}<th>{{.}}</th>{{end}}{{end}}</tr>
{{end}}</table></div></body></html>
`

// figure is a drawing with its title.
type figure struct {
	Title   string
	Drawing template.HTML
}

// HTML writes the report as one page: quality against bytes, and against speed
// where there is one (nil: none), tasks by length and depth, and the table.
func (r *Report) HTML(w io.Writer, speed *Speed) error {
	t, err := template.New("page").Parse(page)
	if err != nil {
		return fmt.Errorf("BUG: %w", err)
	}
	table := r.table()
	for i := range table[1:] {
		table[i+1][0] = r.Costs[i].Format // without the marks of Markdown
	}
	return t.Execute(w, struct {
		Report       *Report
		Speed        *Speed
		Plots, Heats []figure
		Table        [][]string
	}{r, speed, r.plots(speed), r.heats(), table})
}

// plots are KL and every task's score against bits, and against time.
func (r *Report) plots(speed *Speed) []figure {
	var figures []figure
	add := func(title, yName string, log bool, of func(format string) (plot.Point, bool)) {
		axes := []struct {
			name string
			x    func(c Cost) (float64, bool)
		}{{"bits per element of the cache", func(c Cost) (float64, bool) { return c.Bits, true }}}
		if speed != nil {
			axes = append(axes, struct {
				name string
				x    func(c Cost) (float64, bool)
			}{speed.Unit, func(c Cost) (float64, bool) { x, ok := speed.Of[c.Format]; return x, ok }})
		}
		for _, axis := range axes {
			var points []plot.Point
			for _, c := range r.Costs {
				p, known := of(c.Format)
				x, placed := axis.x(c)
				if p.Name, p.X = c.Format, x; known && placed {
					points = append(points, p)
				}
			}
			if len(points) > 0 {
				figures = append(figures, figure{title + " against " + axis.name, template.HTML(plot.Scatter(points, axis.name, yName, log))})
			}
		}
	}
	add("Divergence", "KL to the exact model, nats per token", true, r.klOf)
	for _, task := range r.taskNames() {
		add(task, "score", false, func(format string) (plot.Point, bool) { return r.scoreOf(task, format) })
	}
	return figures
}

// klOf is a format's mean KL over the texts.
func (r *Report) klOf(format string) (plot.Point, bool) {
	var kl average
	for _, t := range r.Texts {
		for _, d := range t.Rows {
			if d.Format == format {
				m := 0.0
				if d.Margin != nil {
					m = d.Margin.KL
				}
				kl.add(d.KL, m)
			}
		}
	}
	if kl.n == 0 {
		return plot.Point{}, false
	}
	half := math.Sqrt(kl.squares) / kl.n
	return plot.Point{Y: kl.sum / kl.n, Above: half, Below: half}, true
}

// scoreOf is a format's mean score in a task.
func (r *Report) scoreOf(task, format string) (plot.Point, bool) {
	t := r.result(task, format)
	if t == nil || t.Cases == 0 {
		return plot.Point{}, false
	}
	if t.Metric == "" || t.Metric == "accuracy" {
		lo, hi := wilson(t.Right, t.Cases)
		y := float64(t.Right) / float64(t.Cases)
		return plot.Point{Y: y, Above: hi - y, Below: y - lo}, true
	}
	half := z95 * deviation(t.Scores) / math.Sqrt(float64(len(t.Scores)))
	return plot.Point{Y: mean(t.Scores), Above: half, Below: half}, true
}

// heats are the tasks by length and depth.
func (r *Report) heats() []figure {
	var figures []figure
	for _, g := range r.Grids(depthBins) {
		h := plot.Heat{}
		for i := range depthBins {
			h.Columns = append(h.Columns, binName(i, depthBins))
		}
		for i, length := range slices.Backward(g.Lengths) {
			h.Rows = append(h.Rows, fmt.Sprintf("%d tokens", length))
			var shares []float64
			var texts []string
			for _, c := range g.Cells[i] {
				shares, texts = append(shares, float64(c.Right)/float64(c.Cases)), append(texts, c.text()) // NaN of none
			}
			h.Share, h.Text = append(h.Share, shares), append(h.Text, texts)
		}
		figures = append(figures, figure{g.Task + " in " + g.Format + " by length and by where the answer stands", template.HTML(h.Draw())})
	}
	return figures
}
