package workload

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// dialect is a kind of CSV trace: the columns that matter, by name.
type dialect struct {
	name                   string
	arrival, input, output string // arrival "" = none
	time                   func(string) (time.Duration, error)
}

func dialects() []dialect {
	return []dialect{
		{name: "Azure", arrival: "TIMESTAMP", input: "ContextTokens", output: "GeneratedTokens", time: azureTime},
		{name: "BurstGPT", arrival: "Timestamp", input: "Request tokens", output: "Response tokens", time: burstTime},
		{name: "Vidur", input: "num_prefill_tokens", output: "num_decode_tokens"},
	}
}

// readCSV reads a CSV file of one of the dialects, told by its head. No dialect
// quotes its fields.
func (w *Workload) readCSV(r io.Reader) error {
	var d *dialect
	var arrival, input, output, columns int
	err := rows(r, func(n int, line []byte) error {
		fields := strings.Split(strings.TrimPrefix(string(line), "\ufeff"), ",")
		if d == nil {
			if d = dialectOf(fields); d == nil {
				return errors.New("the head is none that is known: want the columns of Mooncake (JSONL), Azure, BurstGPT or Vidur; see 'terse bench serve --help'")
			}
			arrival, input, output = slices.Index(fields, d.arrival), slices.Index(fields, d.input), slices.Index(fields, d.output)
			columns = len(fields)
			w.Arrivals = d.arrival != ""
			return nil
		}
		if len(fields) != columns {
			return fmt.Errorf("%d fields where the head has %d", len(fields), columns)
		}
		request, err := d.request(fields, arrival, input, output)
		if err == nil && request.Input > 0 && request.Output > 0 {
			w.Requests = append(w.Requests, request)
		}
		return err
	})
	return err
}

func dialectOf(head []string) *dialect {
	for _, d := range dialects() {
		has := func(column string) bool { return slices.Contains(head, column) }
		if (d.arrival == "" || has(d.arrival)) && has(d.input) && has(d.output) {
			return &d
		}
	}
	return nil
}

func (d *dialect) request(fields []string, arrival, input, output int) (r Request, err error) {
	if d.arrival != "" {
		if r.At, err = d.time(fields[arrival]); err != nil {
			return r, fmt.Errorf("%s: %w", d.arrival, err)
		}
	}
	if r.Input, err = parseTokens(d.input, fields[input]); err != nil {
		return r, err
	}
	r.Output, err = parseTokens(d.output, fields[output])
	return r, err
}

// parseTokens reads a number of tokens, which some traces write as 12.0.
func parseTokens(what, s string) (int, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n != float64(int64(n)) {
		return 0, fmt.Errorf("%s is %q: it must be a whole number", what, s)
	}
	return checkTokens(what, int64(n))
}

// azureTime reads 2023-11-16 18:17:03.9799600 as the time since 2000.
func azureTime(s string) (time.Duration, error) {
	t, err := time.Parse("2006-01-02 15:04:05", s) // takes any fraction
	if err != nil {
		return 0, err
	}
	since := t.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	if since < 0 || since > 10*maxTime {
		return 0, fmt.Errorf("%s is not in 2000 to 2100", s)
	}
	return since, nil
}

func burstTime(s string) (time.Duration, error) {
	t, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of seconds", s)
	}
	return checkTime(t)
}
