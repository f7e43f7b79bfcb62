package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/terse-llm/terse/eval"
)

// savePage writes the report to the --html file, if there is one.
func (f *evalFlags) savePage(r *eval.Report) error {
	if f.html == "" {
		return nil
	}
	var speed *eval.Speed
	if f.speed != "" {
		b, err := os.ReadFile(f.speed)
		if err != nil {
			return fmt.Errorf("cannot read the report of speed: %w", err)
		}
		if speed, err = readSpeed(b); err != nil {
			return fmt.Errorf("%s: %w", f.speed, err)
		}
	}
	var b bytes.Buffer
	if err := r.HTML(&b, speed); err != nil {
		return err
	}
	if err := os.WriteFile(f.html, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("cannot write the page: %w", err)
	}
	return nil
}

// speedReport is what the reports of terse bench serve, model and kernels have that
// says how fast a format is.
type speedReport struct {
	Model    string `json:"model"`
	Workload string `json:"workload"`
	Link     string `json:"link"`
	Machine  any    `json:"machine"` // a string, or more
	Rows     []struct {
		Target string                 `json:"target"` // of serve
		JCT    struct{ Mean float64 } `json:"jct_s"`
		Format string                 `json:"kv"` // of model
		Test   string                 `json:"test"`
		Tokens int                    `json:"tokens"`
		Median float64                `json:"median_ns"`
		Name   string                 `json:"name"` // of kernels
		Unit   float64                `json:"ns_per_unit"`
	} `json:"rows"`
}

// readSpeed takes a time for each format from a report: the mean request's, that of
// a token at the greatest depth, or that of attention in the last of its groups.
func readSpeed(b []byte) (*eval.Speed, error) {
	var r speedReport
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("cannot read the report of speed: %w", err)
	}
	s := &eval.Speed{Of: map[string]float64{}}
	deepest, group := 0, ""
	for _, row := range r.Rows {
		if row.Test == "decode" {
			deepest = max(deepest, row.Tokens)
		}
		if strings.HasPrefix(row.Name, "attend/decode/") {
			group = path.Dir(row.Name)
		}
	}
	for _, row := range r.Rows {
		switch {
		case row.Target != "" && row.JCT.Mean > 0:
			s.Of[row.Target] = row.JCT.Mean
			s.Unit, s.Title = "seconds of a mean request", fmt.Sprintf("terse bench serve, %s, %s, %s", r.Model, r.Workload, r.Link)
		case row.Test == "decode" && row.Tokens == deepest:
			s.Of[row.Format] = row.Median / 1e6
			s.Unit, s.Title = "milliseconds of a token", fmt.Sprintf("terse bench model, %s, %d tokens deep", r.Model, deepest)
		case group != "" && path.Dir(row.Name) == group:
			s.Of[path.Base(row.Name)] = row.Unit
			s.Unit, s.Title = "nanoseconds of attention to a token", "terse bench kernels, "+group
		}
	}
	if len(s.Of) == 0 {
		return nil, fmt.Errorf("cannot read the report of speed: it has no times of terse bench serve, model or kernels (attend/decode)")
	}
	return s, nil
}
