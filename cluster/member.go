package cluster

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/terse-llm/terse"
)

// Member is what a worker tells the cluster about itself, once a beat. Counts
// and rates are as of the record; everything else is constant for one life of
// the worker.
type Member struct {
	ID       string     // unique in the cluster; letters, digits, '-' and '_'
	Role     terse.Role // prefill, decode or both
	DataAddr string     `json:",omitempty"` // host:port where other workers fetch KV; empty = none

	Model       string // the name users ask for
	ModelHash   string // of the weights and the configuration
	Text        string `json:",omitempty"` // hash of the tokenizer's files and the chat template; empty = the model has none
	Calibration string `json:",omitempty"` // hash of the calibration file; empty = none
	Format      string // KV format: name and variant, compared as a whole
	MaxContext  int    // tokens of prompt and answer
	VocabSize   int

	Running       int     // requests in a batch
	Waiting       int     // requests queued
	WaitingTokens int     // prompt tokens accepted and not yet computed
	KVFree        int64   // bytes
	KVTotal       int64   // bytes
	PrefillRate   float64 // tokens/s, measured; 0 = not known yet

	// What a prompt's KV is on the wire, and how fast it came here lately.
	KVFixed    float64            // bytes of every prompt: what its exact windows are beyond codes
	KVPerToken float64            // bytes of every token
	KVSecond   float64            `json:",omitempty"` // of those of a token, second planes, which may come apart
	Links      map[string]float64 `json:",omitempty"` // bytes/s by prefill worker, measured within the last minute

	// Progressive says whether a decode worker begins before second planes are
	// there: on, off or auto, see route; empty = off.
	Progressive string `json:",omitempty"`

	// Replicas are requests that others decode and whose KV is here too.
	Replicas []string `json:",omitempty"`

	// Wedged says why no KV gets through to or from the worker although it is
	// there; empty where all is well.
	Wedged string `json:",omitempty"`

	Started time.Time
	Epoch   uint64 // tells two lives of the same ID apart; larger is later
}

// Limits of a member record. They are far above what a worker sends, and keep
// a stranger on the members subject from filling the gateway's memory.
const (
	maxRecordBytes = 16 << 10
	maxFieldBytes  = 256
	maxMembers     = 4096
	maxIDBytes     = 64
)

// MaxLinks is how many prefill workers a record may have the link of.
const MaxLinks = 64

// MaxReplicas is how many replicas a record may name.
const MaxReplicas = 128

// record is the payload on the members subject.
type record struct {
	Protocol int
	Gone     bool `json:",omitempty"` // a goodbye: Member's ID and Epoch count
	Member   Member
}

func marshalRecord(m Member, gone bool) ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(record{Protocol: protocol, Gone: gone, Member: m})
	if err != nil {
		return nil, fmt.Errorf("cannot encode the record of member %q: %w", m.ID, err)
	}
	return data, nil
}

func unmarshalRecord(data []byte) (record, error) {
	if len(data) > maxRecordBytes {
		return record{}, fmt.Errorf("cannot read a member record of %d bytes: at most %d are taken", len(data), maxRecordBytes)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("cannot read a member record: %w", err)
	}
	if r.Protocol != protocol {
		return record{}, fmt.Errorf("cannot read the record of member %.64q: it speaks cluster protocol %d, this process %d; run the same version of terse everywhere",
			r.Member.ID, r.Protocol, protocol)
	}
	if err := r.Member.validate(); err != nil {
		return record{}, err
	}
	return r, nil
}

func (m Member) validate() error {
	if err := checkName("worker", m.ID); err != nil {
		return err
	}
	if !m.Role.Prefills() && !m.Role.Decodes() {
		return fmt.Errorf("cannot use member %q: role %.32q is none of prefill, decode, both", m.ID, m.Role)
	}
	for _, s := range []string{m.DataAddr, m.Model, m.ModelHash, m.Text, m.Calibration, m.Format, m.Progressive, m.Wedged} {
		if len(s) > maxFieldBytes {
			return fmt.Errorf("cannot use member %q: a field of %d bytes, at most %d are taken", m.ID, len(s), maxFieldBytes)
		}
	}
	if len(m.Replicas) > MaxReplicas {
		return fmt.Errorf("cannot use member %q: %d replicas, at most %d are taken", m.ID, len(m.Replicas), MaxReplicas)
	}
	for _, id := range m.Replicas {
		if id == "" || len(id) > maxIDBytes {
			return fmt.Errorf("cannot use member %q: it has a replica of a request with an ID of %d bytes", m.ID, len(id))
		}
	}
	counts := []int64{int64(m.MaxContext), int64(m.VocabSize), int64(m.Running), int64(m.Waiting), int64(m.WaitingTokens), m.KVFree, m.KVTotal}
	for _, n := range counts {
		if n < 0 {
			return fmt.Errorf("cannot use member %q: a count is negative: %d", m.ID, n)
		}
	}
	if !(m.PrefillRate >= 0) {
		return fmt.Errorf("cannot use member %q: prefill rate %v tokens/s", m.ID, m.PrefillRate)
	}
	if !(m.KVFixed >= 0 && m.KVPerToken >= 0 && m.KVSecond >= 0 && m.KVSecond <= m.KVPerToken) {
		return fmt.Errorf("cannot use member %q: KV of %v bytes and %v a token, %v of them second planes", m.ID, m.KVFixed, m.KVPerToken, m.KVSecond)
	}
	return m.validateLinks()
}

func (m Member) validateLinks() error {
	if len(m.Links) > MaxLinks {
		return fmt.Errorf("cannot use member %q: %d links, at most %d are taken", m.ID, len(m.Links), MaxLinks)
	}
	for id, rate := range m.Links {
		if err := checkName("prefill worker", id); err != nil {
			return err
		}
		if !(rate > 0) {
			return fmt.Errorf("cannot use member %q: a link of %v bytes/s", m.ID, rate)
		}
	}
	return nil
}

// checkName refuses names that would not be one token of a NATS subject.
func checkName(what, name string) error {
	if name == "" || len(name) > maxIDBytes {
		return fmt.Errorf("cannot use %s name %.70q: it must have 1 to %d characters", what, name, maxIDBytes)
	}
	for _, r := range name {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
		if !ok {
			return fmt.Errorf("cannot use %s name %q: %q is not a letter, a digit, '-' or '_'", what, name, r)
		}
	}
	return nil
}
