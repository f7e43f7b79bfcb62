package eval

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Report is everything that an evaluation measured.
type Report struct {
	Model       string
	Version     string `json:",omitempty"` // of the program that measured; of merged reports all of theirs
	Calibration string // hash of the calibration file, "" without one
	Windows     int    // of each text
	Window      int    // tokens
	From        int    // first position scored
	Style       Style  `json:",omitempty"` // how texts got into the cache; "" is Prefill
	Costs       []Cost
	Texts       []TextResult
	Tasks       []TaskResult
	Agreements  []*Agreement `json:",omitempty"`
}

// TextResult is what every format did on one text.
type TextResult struct {
	Text string
	Rows []*Divergence
}

// check refuses a result whose columns are of different cases.
func (t *TaskResult) check() error {
	n := len(t.Scores)
	for _, column := range []int{len(t.Depths), len(t.Numbers)} {
		if column > 0 && column != n {
			return fmt.Errorf("cannot read an evaluation's report: task %s in %s has %d scores and %d depths or numbers of them", t.Task, t.Format, n, column)
		}
	}
	if n > 0 && n != t.Cases || t.Right < 0 || t.Right > t.Cases {
		return fmt.Errorf("cannot read an evaluation's report: task %s in %s has %d scores, %d right, of %d cases", t.Task, t.Format, n, t.Right, t.Cases)
	}
	return nil
}

// ReadReport reads what JSON wrote.
func ReadReport(r io.Reader) (*Report, error) {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	var report Report
	if err := d.Decode(&report); err != nil {
		return nil, fmt.Errorf("cannot read an evaluation's report: %w", err)
	}
	for i := range report.Tasks {
		if err := report.Tasks[i].check(); err != nil {
			return nil, err
		}
	}
	return &report, nil
}

// JSON writes the report for ReadReport.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// Merge adds the texts, formats and tasks of another part of the same
// evaluation: the parts of a long one may run one after another or on several
// machines.
func (r *Report) Merge(o *Report) error {
	if r.Model != o.Model || r.Calibration != o.Calibration {
		return fmt.Errorf("cannot merge reports of different models: %s with calibration %q and %s with calibration %q", r.Model, r.Calibration, o.Model, o.Calibration)
	}
	r.addVersions(o.Version)
	if len(r.Texts) == 0 { // sizes are of texts only
		r.Windows, r.Window, r.From = o.Windows, o.Window, o.From
	}
	if len(o.Texts) > 0 && (r.Windows != o.Windows || r.Window != o.Window || r.From != o.From) {
		return fmt.Errorf("cannot merge reports over different windows: %d of %d tokens from %d on and %d of %d from %d on",
			r.Windows, r.Window, r.From, o.Windows, o.Window, o.From)
	}
	if r.Style != o.Style && len(r.Texts) > 0 && len(o.Texts) > 0 {
		return fmt.Errorf("cannot merge reports of texts in different styles: %q and %q", r.Style, o.Style)
	}
	if len(r.Texts) == 0 {
		r.Style = o.Style
	}
	for _, c := range o.Costs {
		r.addCost(c)
	}
	for _, t := range o.Texts {
		for _, row := range t.Rows {
			if err := r.addRow(t.Text, row); err != nil {
				return err
			}
		}
	}
	for _, a := range o.Agreements {
		if r.agreement(a.Format) == nil {
			r.Agreements = append(r.Agreements, a)
		} else if a.Format != exactFormat {
			return fmt.Errorf("cannot merge reports: both have the greedy agreement of format %s", a.Format)
		}
	}
	for _, t := range o.Tasks {
		if err := r.addTask(t); err != nil {
			return err
		}
	}
	return nil
}

// Joined forgets that tasks were measured in parts, where all of them are here.
func (r *Report) Joined() {
	for i := range r.Tasks {
		t := &r.Tasks[i]
		if slices.Equal(t.Numbers, Part{}.of(t.Cases, 1)) {
			t.Numbers = nil
		}
	}
}

// addVersions keeps every version once.
func (r *Report) addVersions(more string) {
	const between = ", "
	var all []string
	for _, v := range slices.Concat(strings.Split(r.Version, between), strings.Split(more, between)) {
		if v != "" && !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	r.Version = strings.Join(all, between)
}

// addCost keeps one cost of each format: parts that share a format weigh it
// alike.
func (r *Report) addCost(c Cost) {
	if !slices.ContainsFunc(r.Costs, func(have Cost) bool { return have.Format == c.Format }) {
		r.Costs = append(r.Costs, c)
	}
}

// addRow adds what a format did on a text. f16 is measured with every part, and
// the same each time.
func (r *Report) addRow(text string, row *Divergence) error {
	i := slices.IndexFunc(r.Texts, func(t TextResult) bool { return t.Text == text })
	if i < 0 {
		r.Texts = append(r.Texts, TextResult{Text: text, Rows: []*Divergence{row}})
		return nil
	}
	t := &r.Texts[i]
	if !slices.ContainsFunc(t.Rows, func(have *Divergence) bool { return have.Format == row.Format }) {
		t.Rows = append(t.Rows, row)
	} else if row.Format != exactFormat {
		return fmt.Errorf("cannot merge reports: both have format %s on text %s", row.Format, text)
	}
	return nil
}

// addTask adds a task's result: of a format that was not there, or of other cases.
func (r *Report) addTask(t TaskResult) error {
	have := r.result(t.name(), t.Format)
	if have == nil {
		r.Tasks = append(r.Tasks, t)
		return nil
	}
	if have.join(&t) || t.Format == exactFormat && len(t.Numbers) == 0 && have.pairs(&t) {
		return nil
	}
	return fmt.Errorf("cannot merge reports: both have format %s in task %s", t.Format, t.name())
}

// join takes in the scores of another part of the cases; false where the two are
// not parts, or have a case in common. f16 is measured with every part of every
// format, and the same each time.
func (t *TaskResult) join(o *TaskResult) bool {
	type scored struct {
		number       int
		score, depth float64
	}
	if len(t.Numbers) == 0 || len(o.Numbers) == 0 || (len(t.Depths) > 0) != (len(o.Depths) > 0) {
		return false
	}
	var all []scored
	for _, part := range []*TaskResult{t, o} {
		for i, n := range part.Numbers {
			if slices.ContainsFunc(all, func(s scored) bool { return s.number == n }) {
				if t.Format == exactFormat {
					continue
				}
				return false
			}
			s := scored{number: n, score: part.Scores[i]}
			if len(part.Depths) > 0 {
				s.depth = part.Depths[i]
			}
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b scored) int { return a.number - b.number })
	joined := *t
	joined.Cases, joined.Right, joined.Numbers, joined.Scores, joined.Depths = len(all), 0, nil, nil, nil
	for _, s := range all {
		joined.Numbers = append(joined.Numbers, s.number)
		if joined.add(s.score); len(t.Depths) > 0 {
			joined.Depths = append(joined.Depths, s.depth)
		}
	}
	*t = joined
	return true
}

// Markdown is the report as one table with a row for each format, its columns
// aligned for readers of plain text. Divergences are means over the texts.
func (r *Report) Markdown() string { return align(r.table()) }

// table is the header and the formats' rows.
func (r *Report) table() [][]string {
	table := [][]string{r.header()}
	for _, c := range r.Costs {
		row := []string{"`" + c.Format + "`", fmt.Sprintf("%.3f", c.Bits), fmt.Sprintf("%.1f %%", 100*c.Wire)}
		row = append(row, r.divergences(c.Format)...)
		row = append(row, r.agrees(c.Format)...)
		for _, task := range r.taskNames() {
			row = append(row, r.answers(task, c.Format))
		}
		table = append(table, row)
	}
	return table
}

func (r *Report) header() []string {
	h := []string{"format", "bits per element", "wire"}
	if len(r.Texts) > 0 {
		var names []string
		for _, t := range r.Texts {
			names = append(names, t.Text)
		}
		what := "perplexity "
		if r.Style == Decode {
			what = "decoded perplexity "
		}
		h = append(h, what+strings.Join(names, " / "), "loss", "KL", "KL p99", "top-1")
	}
	if len(r.Agreements) > 0 {
		h = append(h, "greedy tokens until apart", "greedy tokens equal")
	}
	return append(h, r.taskNames()...)
}

// missing stands for what was not measured.
const missing = "–"

func (r *Report) divergences(format string) []string {
	if len(r.Texts) == 0 {
		return nil
	}
	var perplexities []string
	var loss, kl, p99, top1 average
	for _, t := range r.Texts {
		i := slices.IndexFunc(t.Rows, func(d *Divergence) bool { return d.Format == format })
		if i < 0 {
			return []string{missing, missing, missing, missing, missing}
		}
		d := t.Rows[i]
		m := d.Margin
		if m == nil {
			m = &Margin{}
		}
		perplexities = append(perplexities, fmt.Sprintf("%.2f", d.Perplexity))
		loss.add(d.Loss, m.Loss)
		kl.add(d.KL, m.KL)
		p99.add(d.KLp99, m.KLp99)
		top1.add(d.Top1, m.Top1)
	}
	return []string{strings.Join(perplexities, " / "), loss.text(4), kl.text(4), p99.text(3), top1.text(3)}
}

// average is a mean over texts, each with its margin. Texts are independent, so
// that the squares of their margins add.
type average struct{ sum, squares, n float64 }

func (a *average) add(value, margin float64) {
	a.sum, a.squares, a.n = a.sum+value, a.squares+margin*margin, a.n+1
}

// text leaves out a margin of nothing: the exact model's.
func (a *average) text(digits int) string {
	value := fmt.Sprintf("%.*f", digits, a.sum/a.n)
	if a.squares == 0 {
		return value
	}
	return fmt.Sprintf("%s ± %.*f", value, digits, math.Sqrt(a.squares)/a.n)
}

// taskNames are the tasks and lengths in the order they ran.
func (r *Report) taskNames() []string {
	var names []string
	for _, t := range r.Tasks {
		if !slices.Contains(names, t.name()) {
			names = append(names, t.name())
		}
	}
	return names
}

func (t TaskResult) name() string {
	if t.Metric != "" {
		return t.Task + " " + t.Metric
	}
	return fmt.Sprintf("%s@%d", t.Task, t.Length)
}

func (r *Report) agreement(format string) *Agreement {
	for _, a := range r.Agreements {
		if a.Format == format {
			return a
		}
	}
	return nil
}

// agrees are the cells of greedy agreement: how long, of how many, and the share
// of equal tokens.
func (r *Report) agrees(format string) []string {
	if len(r.Agreements) == 0 {
		return nil
	}
	a := r.agreement(format)
	if a == nil {
		return []string{missing, missing}
	}
	return []string{fmt.Sprintf("%s of %d", spread(a.Until, 0), a.Length), spread(a.Equal, 3)}
}

// spread is the mean of independent cases with half its 95 % interval.
func spread(values []float64, digits int) string {
	var a average
	a.add(mean(values), z95*deviation(values)/math.Sqrt(float64(len(values))))
	return a.text(digits)
}

// answers is a cell of a task: right answers of all, the 95 % interval of their
// share, and which of the same cases went the other way in f16.
func (r *Report) answers(task, format string) string {
	t := r.result(task, format)
	if t == nil || t.Cases == 0 {
		return missing
	}
	exact := r.result(task, exactFormat)
	if t.Metric != "" && t.Metric != "accuracy" {
		return t.graded(exact)
	}
	lo, hi := wilson(t.Right, t.Cases)
	cell := fmt.Sprintf("%d/%d (%.2f–%.2f", t.Right, t.Cases, lo, hi)
	if format != exactFormat && exact != nil && len(t.Scores) > 0 && t.pairs(exact) {
		gained, lost := t.against(exact)
		cell += fmt.Sprintf("; +%d −%d", gained, lost)
	}
	return cell + ")"
}

func (r *Report) result(task, format string) *TaskResult {
	for i := range r.Tasks {
		if t := &r.Tasks[i]; t.name() == task && t.Format == format {
			return t
		}
	}
	return nil
}

// graded is a cell of scores that are more than right or wrong: their mean, and
// the mean difference to f16's of the same cases.
func (t *TaskResult) graded(exact *TaskResult) string {
	cell := spread(t.Scores, 3)
	if exact == nil || t.Format == exactFormat || !t.pairs(exact) {
		return cell
	}
	d := make([]float64, len(t.Scores))
	for i := range d {
		d[i] = t.Scores[i] - exact.Scores[i]
	}
	return cell + " (to f16: " + spread(d, 3) + ")"
}

// pairs reports whether two results are of the same cases.
func (t *TaskResult) pairs(o *TaskResult) bool {
	return len(t.Scores) == len(o.Scores) && slices.Equal(t.Numbers, o.Numbers)
}

// against counts the cases that score higher and lower than another format's.
func (t *TaskResult) against(o *TaskResult) (gained, lost int) {
	for i, score := range t.Scores {
		switch {
		case score > o.Scores[i]:
			gained++
		case score < o.Scores[i]:
			lost++
		}
	}
	return gained, lost
}

// align pads cells to their column's width.
func align(table [][]string) string {
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	for n, row := range table {
		line(&b, row, widths, " ")
		if n == 0 {
			line(&b, make([]string, len(row)), widths, "-")
		}
	}
	return b.String()
}

func line(b *strings.Builder, row []string, widths []int, pad string) {
	for i, cell := range row {
		fmt.Fprintf(b, "|%s%s%s", pad, cell+strings.Repeat(pad, widths[i]-len([]rune(cell))), pad)
	}
	b.WriteString("|\n")
}
