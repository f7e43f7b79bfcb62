package workload

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// readMooncake reads one JSON object a line.
func (w *Workload) readMooncake(r io.Reader) error {
	w.Arrivals = true
	return rows(r, func(_ int, line []byte) error {
		request, err := mooncakeRow(line)
		if err == nil && request.Output > 0 {
			w.Requests = append(w.Requests, request)
		}
		return err
	})
}

func mooncakeRow(line []byte) (r Request, err error) {
	var row struct {
		Timestamp *float64 `json:"timestamp"`
		Input     *int64   `json:"input_length"`
		Output    *int64   `json:"output_length"`
		HashIDs   []int64  `json:"hash_ids"`
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if err := d.Decode(&row); err != nil {
		return r, err
	}
	if row.Timestamp == nil || row.Input == nil || row.Output == nil {
		return r, fmt.Errorf("timestamp, input_length or output_length is missing: this is not a Mooncake trace")
	}
	if r.At, err = checkTime(*row.Timestamp / 1000); err != nil {
		return r, err
	}
	if r.Input, err = checkTokens("input_length", *row.Input); err != nil {
		return r, err
	}
	if r.Output, err = checkTokens("output_length", *row.Output); err != nil {
		return r, err
	}
	if r.Input == 0 {
		return r, fmt.Errorf("input_length is 0: a prompt has at least one token")
	}
	if want := (r.Input + blockTokens - 1) / blockTokens; len(row.HashIDs) != 0 && len(row.HashIDs) != want {
		return r, fmt.Errorf("%d hash_ids for %d tokens: with blocks of %d there must be %d", len(row.HashIDs), r.Input, blockTokens, want)
	}
	r.Blocks = slices.Clip(row.HashIDs)
	return r, nil
}

// checkTime bounds a time in seconds.
func checkTime(s float64) (time.Duration, error) {
	if !(s >= 0 && s <= maxTime.Seconds()) {
		return 0, fmt.Errorf("time %v s: it must be 0 to %.0f", s, maxTime.Seconds())
	}
	return seconds(s), nil
}
