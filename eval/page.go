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
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width"/><title>terse eval: {{.Report.Model}}</title>
<style>` + plot.Style + `</style></head>
<body><h1>What KV formats cost in quality: {{.Report.Model}}</h1>
<p>{{with .Report.Version}}Measured by terse {{.}}. {{end}}{{with .Report.Calibration}}Calibration {{.}}. {{else}}No calibration. {{end}}Intervals are of 95 %.{{with .Speed}} Speed: {{.Title}}.{{end}}</p>
{{range .Figures}}<h2>{{.Title}}</h2>
<div class="scroll">{{.Drawing}}</div>
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
		Report  *Report
		Speed   *Speed
		Figures []figure
		Table   [][]string
	}{r, speed, append(r.plots(speed), r.heats()...), table})
}

// plots are KL and every task's score against bits, and against time. A format has
// one colour in all of them.
func (r *Report) plots(speed *Speed) []figure {
	type axis struct {
		plot.Axis
		x func(c Cost) (float64, bool)
	}
	axes := []axis{{plot.Axis{Name: "bits per element of the cache", Log: true}, func(c Cost) (float64, bool) { return c.Bits, true }}}
	if speed != nil {
		axes = append(axes, axis{plot.Axis{Name: speed.Unit}, func(c Cost) (float64, bool) { x, ok := speed.Of[c.Format]; return x, ok }})
	}
	var figures []figure
	add := func(title string, y plot.Axis, of func(format string) (plot.Point, bool)) {
		for _, across := range axes {
			var points []plot.Point
			for i, c := range r.Costs {
				p, known := of(c.Format)
				x, placed := across.x(c)
				if p.Name, p.Series, p.X = c.Format, i, x; known && placed {
					points = append(points, p)
				}
			}
			if len(points) > 0 {
				figures = append(figures, figure{title + " against " + across.Name, template.HTML(plot.Scatter(points, across.Axis, y))})
			}
		}
	}
	add("Divergence", plot.Axis{Name: "KL to the exact model, nats per token", Log: true}, r.klOf)
	for _, task := range r.taskNames() {
		add(task, plot.Axis{Name: "score"}, func(format string) (plot.Point, bool) { return r.scoreOf(task, format) })
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

// heats are the tasks by depth: formats below each other where all have one and the
// same length, else lengths below each other for each format.
func (r *Report) heats() []figure {
	var figures []figure
	grids := r.Grids(depthBins)
	for len(grids) > 0 {
		n := 1
		for n < len(grids) && grids[n].Task == grids[0].Task {
			n++
		}
		figures = append(figures, heatsOf(grids[:n])...)
		grids = grids[n:]
	}
	return figures
}

// heatsOf are the figures of one task.
func heatsOf(grids []*Grid) []figure {
	first := grids[0].Lengths
	together := len(first) == 1 && !slices.ContainsFunc(grids, func(g *Grid) bool { return !slices.Equal(g.Lengths, first) })
	var figures []figure
	var h *plot.Heat
	for i, g := range grids {
		if i == 0 || !together {
			h = newHeat()
		}
		for i, length := range slices.Backward(g.Lengths) {
			name := fmt.Sprintf("%d tokens", length)
			if together {
				name = g.Format
			}
			var shares []float64
			var texts []string
			for _, c := range g.Cells[i] {
				shares, texts = append(shares, float64(c.Right)/float64(c.Cases)), append(texts, c.text()) // NaN of none
			}
			h.Rows, h.Share, h.Text = append(h.Rows, name), append(h.Share, shares), append(h.Text, texts)
		}
		title := g.Task + " in " + g.Format + " by length and by where the answer stands"
		if together {
			title = fmt.Sprintf("%s@%d by where the answer stands", g.Task, first[0])
		}
		if !together || i == len(grids)-1 {
			figures = append(figures, figure{title, template.HTML(h.Draw())})
		}
	}
	return figures
}

// newHeat has a column for each part of a text.
func newHeat() *plot.Heat {
	h := &plot.Heat{}
	for i := range depthBins {
		h.Columns = append(h.Columns, binName(i, depthBins))
	}
	return h
}
