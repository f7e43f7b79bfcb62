package cluster

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/terse-llm/terse"
)

// Target is the worker that computes a job's prompt for another.
type Target struct {
	WorkerID string
	DataAddr string // host:port
}

// Job is one request on its way to the worker that will answer it.
type Job struct {
	Request terse.Request
	Prefill *Target  // nil = the worker does all of it itself
	Others  []Target // to turn to, in this order, where Prefill fails
	// Host, where positive, asks for no answer but that a replica is kept of the
	// request, which Prefill decodes, from its first so many tokens on.
	Host    int
	Attempt int // 0 for the first; a larger one makes the KV of smaller ones stale
	// Arrival at the gateway, in the reader's own clock: the wire carries the
	// age, so that clocks need not agree (the message's flight is not counted).
	Arrival time.Time
	Route   string // why it was split or stayed, for Timing.Route
	Apart   bool   // a worker that is left to decide has second planes come apart from the rest
	Planes  string // why, or why not, for Timing.Planes
}

// jobHead is the part of a job that travels as JSON. The prompt follows it,
// packed.
type jobHead struct {
	Request terse.Request
	Prefill *Target  `json:",omitempty"`
	Others  []Target `json:",omitempty"`
	Host    int      `json:",omitempty"`
	Attempt int      `json:",omitempty"`
	Age     time.Duration
	Route   string `json:",omitempty"`
	Apart   bool   `json:",omitempty"`
	Planes  string `json:",omitempty"`
}

func (h *jobHead) prefill() []Target {
	if h.Prefill == nil {
		return nil
	}
	return []Target{*h.Prefill}
}

func marshalJob(j Job, now time.Time) ([]byte, error) {
	h := jobHead{Request: j.Request, Prefill: j.Prefill, Others: j.Others, Host: j.Host, Attempt: j.Attempt, Route: j.Route, Apart: j.Apart, Planes: j.Planes}
	h.Request.Prompt = nil
	if !j.Arrival.IsZero() {
		h.Age = max(now.Sub(j.Arrival), 0)
	}
	headJSON, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("cannot encode job %s: %w", j.Request.ID, err)
	}
	data := make([]byte, 0, headerBytes+len(headJSON)+3*len(j.Request.Prompt)+2*binary.MaxVarintLen32)
	data = append(data, protocol, kindJob)
	data = binary.AppendUvarint(data, uint64(len(headJSON)))
	data = append(data, headJSON...)
	data, err = appendTokens(data, j.Request.Prompt)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the prompt of job %s: %w", j.Request.ID, err)
	}
	return data, nil
}

func unmarshalJob(data []byte, now time.Time) (Job, error) {
	kind, rest, err := header(data)
	if err != nil {
		return Job{}, err
	}
	if kind != kindJob {
		return Job{}, fmt.Errorf("cannot read a job: message kind %d", kind)
	}
	r := reader{data: rest}
	headJSON := r.bytes()
	prompt := r.tokens()
	if err := r.end(); err != nil {
		return Job{}, fmt.Errorf("cannot read a job: %w", err)
	}
	var h jobHead
	if err := json.Unmarshal(headJSON, &h); err != nil {
		return Job{}, fmt.Errorf("cannot read a job: %w", err)
	}
	if h.Host < 0 || h.Host > 0 && h.Prefill == nil {
		return Job{}, fmt.Errorf("cannot read a job: a replica of %d tokens of nobody's", h.Host)
	}
	if h.Age < 0 || h.Attempt < 0 {
		return Job{}, fmt.Errorf("cannot read a job: age %v, attempt %d", h.Age, h.Attempt)
	}
	for _, t := range append(h.Others, h.prefill()...) {
		if err := checkName("prefill worker", t.WorkerID); err != nil {
			return Job{}, fmt.Errorf("cannot read a job: %w", err)
		}
	}
	h.Request.Prompt = prompt
	return Job{
		Request: h.Request, Prefill: h.Prefill, Others: h.Others, Host: h.Host, Attempt: h.Attempt, Arrival: now.Add(-h.Age),
		Route: h.Route, Apart: h.Apart, Planes: h.Planes,
	}, nil
}
