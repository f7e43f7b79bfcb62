package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// JSON writes the report for machines.
func (r *TransferReport) JSON(w io.Writer) error { return writeJSON(w, r) }

// Table writes the report for people.
func (r *TransferReport) Table(w io.Writer) error {
	fmt.Fprintf(w, "%v\n%s, from %s over %d connections; first transfer %v cold, %v warm\n\n", r.Machine, r.Shape, r.Link, r.Conns,
		r.Cold.Round(10*time.Microsecond), r.Warm.Round(time.Microsecond))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "format\tMB\tsecond planes MB\tdecoding begins\tmedian\tquartiles\tGb/s\tas f16 Gb/s\tof iperf3\tcores send\tcores receive\n")
	for _, x := range r.Rows {
		of := "-"
		if x.OfIperf > 0 {
			of = fmt.Sprintf("%.0f %%", 100*x.OfIperf)
		}
		second, begin := "-", short(x.Time.Median)
		if x.Second > 0 {
			second, begin = fmt.Sprintf("%.1f", float64(x.Second)/1e6), short(x.Begin.Median)
		}
		fmt.Fprintf(t, "%s\t%.1f\t%s\t%v\t%v\t%v-%v\t%.2f\t%.2f\t%s\t%.2f\t%.2f\n", x.Format, float64(x.Bytes)/1e6, second, begin, short(x.Time.Median), short(x.Time.Low), short(x.Time.High),
			x.Gbps, x.F16Gbps, of, x.SendCores, x.RecvCores)
	}
	for _, x := range r.Iperf {
		fmt.Fprintf(t, "iperf3\t\t\t\t\t\t%.2f\t\t\t%.2f\t%.2f\n", x.Gbps, x.SendCores, x.RecvCores)
	}
	return t.Flush()
}

// short is a duration to three digits or so.
func short(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
