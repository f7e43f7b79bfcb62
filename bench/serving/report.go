package serving

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Report is what a replay found.
type Report struct {
	Machine  string    `json:"machine,omitempty"`
	Version  string    `json:"version,omitempty"` // of the program that measured
	Model    string    `json:"model,omitempty"`
	Workload string    `json:"workload"`
	Link     string    `json:"link,omitempty"` // as asked for
	LinkRate float64   `json:"link_bytes_per_s,omitempty"`
	Load     string    `json:"load"` // how requests arrived
	SLO      SLO       `json:"slo"`
	Rows     []Row     `json:"rows"`
	Requests []Outcome `json:"requests"`

	spent []float64 // seconds that each target of Rows took
}

// SLO is what a request must keep to count as served well; 0 = no bound.
type SLO struct {
	TTFT float64 `json:"ttft_s"`
	TPOT float64 `json:"tpot_s"`
}

// Spread is a distribution of seconds.
type Spread struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
}

// Parts are a request's mean time by part, in seconds. They do not overlap, but for
// Attend, which is a part of Decode, and Pack and Unpack, which go on beside them.
type Parts struct {
	Queue    float64 `json:"queue"`
	Prefill  float64 `json:"prefill"`
	Quantise float64 `json:"quantise"`
	Transfer float64 `json:"transfer"` // not hidden behind prefill
	Wait     float64 `json:"wait"`
	Decode   float64 `json:"decode"`
	Pack     float64 `json:"pack,omitempty"`   // of a core, range-coding KV to send it (cachegen), beside prefill and transfer
	Unpack   float64 `json:"unpack,omitempty"` // of a core, decoding it as it came
	Attend   float64 `json:"attend"`           // attention: its products, and dequantising or correcting; 0 = not told
}

// Row is one target's figures over all rounds.
type Row struct {
	Target   string  `json:"target"`
	Requests int     `json:"requests"`
	Failed   int     `json:"failed"`
	Input    float64 `json:"input_mean"`  // tokens
	Cached   float64 `json:"cached_mean"` // of them
	Output   float64 `json:"output_mean"`
	JCT      Spread  `json:"jct_s"`
	TTFT     Spread  `json:"ttft_s"`
	TPOT     Spread  `json:"tpot_s"`
	ITL      Spread  `json:"itl_s"`
	Goodput  float64 `json:"goodput_per_s"` // requests within the SLO a second
	Good     float64 `json:"good"`          // share of requests within the SLO

	Parts         *Parts  `json:"parts_s,omitempty"` // nil where the server does not tell
	TransferWhole float64 `json:"transfer_whole_s"`  // first byte to last, the hidden part included
	KVBytes       float64 `json:"kv_bytes_mean"`     // moved for a request
	KVShare       float64 `json:"kv_share"`          // of what float16 would have moved
	PeakKV        int64   `json:"peak_kv_bytes"`     // held by all workers together
	Split         float64 `json:"split"`             // share of requests whose KV crossed
	Planes        *Planes `json:"planes,omitempty"`  // where second planes may come apart from the rest
}

func (r *replay) report() *Report {
	out := &Report{Workload: r.Workload.Name, Requests: r.outcomes}
	out.Load = "as they arrive"
	if r.Concurrency > 0 {
		out.Load = fmt.Sprintf("%d at a time", r.Concurrency)
	}
	slices.SortStableFunc(out.Requests, func(a, b Outcome) int {
		return cmp.Or(cmp.Compare(a.Round, b.Round), cmp.Compare(a.Number, b.Number))
	})
	for i, t := range r.Targets {
		row := rowOf(t.Name, out.Requests, r.peaks[i])
		if t.Whole != "" {
			row.Planes = planesOf(t.Name, t.Whole, out.Requests)
		}
		out.Rows = append(out.Rows, row)
	}
	out.spent = r.spent
	return out
}

// Judge counts the requests that kept an SLO.
func (r *Report) Judge(slo SLO) {
	r.SLO = slo
	for i := range r.Rows {
		row := &r.Rows[i]
		good := 0
		for _, o := range r.Requests {
			if o.Target == row.Target && o.Error == "" && (slo.TTFT == 0 || o.TTFT <= slo.TTFT) && (slo.TPOT == 0 || o.TPOT() <= slo.TPOT) {
				good++
			}
		}
		row.Good = float64(good) / float64(max(1, row.Requests))
		if r.spent[i] > 0 {
			row.Goodput = float64(good) / r.spent[i]
		}
	}
}

func rowOf(name string, all []Outcome, peak int64) Row {
	row := Row{Target: name, PeakKV: peak}
	var jct, ttft, tpot, itl []float64
	var parts Parts
	timed, f16 := 0, 0.0
	for _, o := range all {
		if o.Target != name {
			continue
		}
		row.Requests++
		if o.Error != "" {
			row.Failed++
			continue
		}
		row.Input += float64(o.Input)
		row.Cached += float64(o.Cached)
		row.Output += float64(o.Output)
		jct, ttft, itl = append(jct, o.JCT), append(ttft, o.TTFT), append(itl, o.Gaps...)
		if o.Output > 1 {
			tpot = append(tpot, o.TPOT())
		}
		if t := o.Timing; t != nil {
			timed++
			parts.add(t)
			row.TransferWhole += t.TransferTotal / 1000
			row.KVBytes += float64(t.KVBytes)
			f16 += float64(t.KVBytesF16)
			if t.KVBytes > 0 {
				row.Split++
			}
		}
	}
	row.JCT, row.TTFT, row.TPOT, row.ITL = spreadOf(jct), spreadOf(ttft), spreadOf(tpot), spreadOf(itl)
	row.Input, row.Cached, row.Output = over(row.Input, len(jct)), over(row.Cached, len(jct)), over(row.Output, len(jct))
	if timed > 0 {
		if f16 > 0 {
			row.KVShare = row.KVBytes / f16
		}
		row.Parts = parts.over(timed)
		row.TransferWhole, row.KVBytes, row.Split = over(row.TransferWhole, timed), over(row.KVBytes, timed), over(row.Split, timed)
	}
	return row
}

func (p *Parts) add(t *Timing) {
	p.Queue += t.Queue / 1000
	p.Prefill += t.Prefill / 1000
	p.Quantise += t.Quantise / 1000
	p.Transfer += t.Transfer / 1000
	p.Wait += t.Wait / 1000
	p.Decode += t.Decode / 1000
	p.Attend += t.Attend / 1000
	p.Pack += t.Pack / 1000
	p.Unpack += t.Unpack / 1000
}

func (p *Parts) over(n int) *Parts {
	return &Parts{over(p.Queue, n), over(p.Prefill, n), over(p.Quantise, n), over(p.Transfer, n), over(p.Wait, n), over(p.Decode, n), over(p.Pack, n), over(p.Unpack, n), over(p.Attend, n)}
}

func over(sum float64, n int) float64 { return sum / float64(max(1, n)) }

func spreadOf(x []float64) Spread {
	if len(x) == 0 {
		return Spread{}
	}
	x = slices.Sorted(slices.Values(x))
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return Spread{Mean: sum / float64(len(x)), P50: quantile(x, 0.5), P99: quantile(x, 0.99)}
}

// quantile interpolates between the two nearest of the sorted x.
func quantile(x []float64, q float64) float64 {
	at := q * float64(len(x)-1)
	low := int(at)
	high := min(low+1, len(x)-1)
	return x[low] + (at-math.Floor(at))*(x[high]-x[low])
}

// JSON writes the whole report.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// ReadReport reads what JSON wrote.
func ReadReport(r io.Reader) (*Report, error) {
	var out Report
	if err := json.NewDecoder(r).Decode(&out); err != nil {
		return nil, fmt.Errorf("cannot read a report of terse bench serve: %w", err)
	}
	return &out, nil
}

// CSV writes a line a request.
func (r *Report) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"target", "round", "request", "input", "cached", "output", "ttft_s", "tpot_s", "jct_s",
		"queue_s", "prefill_s", "quantise_s", "transfer_s", "wait_s", "decode_s", "attend_s", "pack_s", "unpack_s", "kv_bytes", "kv_bytes_second", "top_plane_tokens", "adoption_s", "error"}) // Error has it
	f := func(x float64) string { return strconv.FormatFloat(x, 'f', 6, 64) }
	for _, o := range r.Requests {
		t := o.Timing
		if t == nil {
			t = &Timing{}
		}
		_ = c.Write([]string{o.Target, strconv.Itoa(o.Round), strconv.Itoa(o.Number), strconv.Itoa(o.Input), strconv.Itoa(o.Cached), strconv.Itoa(o.Output),
			f(o.TTFT), f(o.TPOT()), f(o.JCT), f(t.Queue / 1000), f(t.Prefill / 1000), f(t.Quantise / 1000), f(t.Transfer / 1000), f(t.Wait / 1000),
			f(t.Decode / 1000), f(t.Attend / 1000), f(t.Pack / 1000), f(t.Unpack / 1000), strconv.FormatInt(t.KVBytes, 10), strconv.FormatInt(t.KVSecond, 10), strconv.Itoa(t.TopTokens), f(t.Adoption / 1000), o.Error})
	}
	c.Flush()
	return c.Error()
}

// Markdown is the report as two tables: what users see, and where the time went.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| | JCT mean | p50 | p99 | to `%s` | TTFT mean | p50 | p99 | TPOT mean | p50 | p99 | ITL mean | p50 | p99 | good | goodput/s |\n|---|%s\n",
		r.yardstick().Target, strings.Repeat("---|", 15))
	base := r.yardstick().JCT.Mean
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s | %s | %+.0f %% | %s | %s | %s | %.0f %% | %.2f |\n", row.label(), row.JCT.cells(), 100*(row.JCT.Mean/base-1),
			row.TTFT.cells(), row.TPOT.cells(), row.ITL.cells(), 100*row.Good, row.Goodput)
	}
	b.WriteString("\n| | queue | prefill | quantise | transfer | whole transfer | wait | decode | of it attention | KV moved | of float16 | split | peak KV |\n|---|" + strings.Repeat("---|", 12) + "\n")
	for _, row := range r.Rows {
		if p := row.Parts; p != nil {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %.1f %% | %.0f %% | %s |\n", row.label(), clock(p.Queue), clock(p.Prefill), clock(p.Quantise), clock(p.Transfer),
				clock(row.TransferWhole), clock(p.Wait), clock(p.Decode), p.attention(), size(row.KVBytes), 100*row.KVShare, 100*row.Split, size(float64(row.PeakKV)))
		}
	}
	for _, row := range r.Rows {
		if p := row.Parts; p != nil && p.Pack+p.Unpack > 0 {
			fmt.Fprintf(&b, "\nRange-coding the KV of %s takes %s of a core where it is sent and %s where it comes, beside prefill and transfer.\n", row.label(), clock(p.Pack), clock(p.Unpack))
		}
	}
	b.WriteString(r.planesTable())
	return b.String()
}

// cells are three cells of a table.
func (s Spread) cells() string {
	return clock(s.Mean) + " | " + clock(s.P50) + " | " + clock(s.P99)
}

// attention is "–" where the backend does not tell.
func (p *Parts) attention() string {
	if p.Attend == 0 {
		return "–"
	}
	return clock(p.Attend)
}

func (r *Row) label() string {
	name := "`" + r.Target + "`"
	if r.Failed > 0 {
		name += fmt.Sprintf(" (%d of %d failed)", r.Failed, r.Requests)
	}
	return name
}

// SplitF16 is the name of the target that the others are held against.
const SplitF16 = "f16"

// yardstick is split float16 where it was measured, and otherwise the first.
func (r *Report) yardstick() *Row {
	for i := range r.Rows {
		if r.Rows[i].Target == SplitF16 {
			return &r.Rows[i]
		}
	}
	return &r.Rows[0]
}

// clock writes seconds with three digits or so.
func clock(s float64) string {
	switch {
	case s == 0:
		return "0"
	case s < 0.001:
		return fmt.Sprintf("%.0f µs", s*1e6)
	case s < 0.1:
		return fmt.Sprintf("%.1f ms", s*1e3)
	case s < 1:
		return fmt.Sprintf("%.0f ms", s*1e3)
	}
	return fmt.Sprintf("%.2f s", s)
}

func size(b float64) string {
	switch {
	case b >= 1<<30:
		return fmt.Sprintf("%.2f GiB", b/(1<<30))
	case b >= 1<<20:
		return fmt.Sprintf("%.2f MiB", b/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", b/(1<<10))
}
