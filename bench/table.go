package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// JSON writes the report for machines.
func (r *KernelReport) JSON(w io.Writer) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(v)
}

// Table writes the report for people.
func (r *KernelReport) Table(w io.Writer) error {
	fmt.Fprintf(w, "%v\n", r.Machine)
	fmt.Fprintf(w, "fastest seen: %s; %s\n", r.Single.String(), r.All.String())
	group := ""
	var t *tabwriter.Writer
	for _, row := range r.Rows {
		if row.Group != group {
			if t != nil {
				if err := t.Flush(); err != nil {
					return err
				}
			}
			group = row.Group
			t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintf(t, "\n%s\tmedian\tquartiles\tper unit\tGB/s\tGop/s\tfloor\tof floor\tspeed\n", group)
		}
		row.write(t)
	}
	if t == nil {
		return nil
	}
	return t.Flush()
}

func (r *Row) write(w io.Writer) {
	name := strings.TrimPrefix(strings.TrimPrefix(r.Name, r.Group), "/")
	gops, floor, of, speed := "-", "-", "-", ""
	if r.Gops > 0 {
		gops = number(r.Gops)
	}
	if r.Floor > 0 {
		floor, of = span(r.Floor)+" "+r.Bound, fmt.Sprintf("%.2fx", r.OfFloor)
	}
	if r.Base != "" {
		speed = fmt.Sprintf("%.2fx %s", r.Speed, strings.TrimPrefix(strings.TrimPrefix(r.Base, r.Group), "/"))
	}
	fmt.Fprintf(w, "%s\t%s\t%s-%s\t%s ns/%s\t%s\t%s\t%s\t%s\t%s\n", name, span(r.Median), span(r.Low), span(r.High),
		number(r.PerUnit), r.Unit, number(r.GBps), gops, floor, of, speed)
}

// String names the rates of some threads.
func (l *Limits) String() string {
	s := fmt.Sprintf("%d thread", l.Threads)
	if l.Threads > 1 {
		s += "s"
	}
	s += fmt.Sprintf(" read %s GB/s, f32 %s Gop/s", number(l.Read), number(l.FMA))
	if l.Maddubs > 0 {
		s += fmt.Sprintf(", maddubs %s", number(l.Maddubs))
	}
	if l.Dpbusd > 0 {
		s += fmt.Sprintf(", dpbusd %s", number(l.Dpbusd))
	}
	return s
}

// number is x with three digits.
func number(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// span is a time with three digits and its unit.
func span(d time.Duration) string {
	switch {
	case d >= time.Second:
		return number(d.Seconds()) + "s"
	case d >= time.Millisecond:
		return number(float64(d)/1e6) + "ms"
	case d >= time.Microsecond:
		return number(float64(d)/1e3) + "us"
	}
	return fmt.Sprintf("%dns", d)
}

// JSON writes the report for machines.
func (r *ModelReport) JSON(w io.Writer) error { return writeJSON(w, r) }

// Table writes the report for people.
func (r *ModelReport) Table(w io.Writer) error {
	fmt.Fprintf(w, "%v\nmodel %s\n\n", r.Machine, r.Name)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "test\ttokens\tkv\ttokens/s\tquartiles\ta prompt or token\tcoding\tallocations\tsamples")
	for _, row := range r.Rows {
		coding, allocs := "", ""
		if row.Test == "decode" {
			allocs = fmt.Sprint(row.Allocs)
		} else {
			coding = fmt.Sprintf("%.1f%%", 100*row.Coding)
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s-%s\t%s\t%s\t%s\t%d\n", row.Test, row.Tokens, row.Format,
			number(row.Rate), number(row.Low), number(row.High), span(row.Median), coding, allocs, row.Samples)
	}
	return t.Flush()
}
