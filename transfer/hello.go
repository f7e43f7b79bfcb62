package transfer

import (
	"encoding/json"
	"fmt"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Hello is what two workers must agree on before any KV moves. Epoch is the
// decoder's, new for every attempt at a request.
type Hello struct {
	Worker      string // id, for messages only
	Model       string // name, for messages only
	ModelHash   string // hex of weights.Source.Fingerprint
	Calibration string // hex of the calibration file's hash, "" for none
	Format      string // canonical name
	Symmetric   bool
	Layers      int
	KVHeads     int
	HeadDim     int
	ExactBytes  int // per layer and page, so that a layout change is never silent
	CodedBytes  int
	Epoch       uint32 `json:",omitempty"`
}

// NewHello fills in what follows from the geometry.
func NewHello(worker, model, modelHash, calibration string, g *quant.Geometry) Hello {
	return Hello{
		Worker: worker, Model: model, ModelHash: modelHash, Calibration: calibration,
		Format: g.Format.Name, Symmetric: g.Format.Symmetric,
		Layers: g.Layers, KVHeads: g.KVHeads, HeadDim: g.HeadDim,
		ExactBytes: g.ExactBytes(), CodedBytes: g.CodedBytes(),
	}
}

// match is nil, or an error of CodeMismatch that names both sides and the
// first thing that differs.
func (h Hello) match(peer Hello) error {
	for _, c := range []struct {
		what       string
		mine, your any
		hint       string
	}{
		{"model", h.ModelHash, peer.ModelHash, "give both workers the same --model"},
		{"calibration file", h.Calibration, peer.Calibration, "give both workers the same calibration file"},
		{"KV format", h.Format, peer.Format, "give both workers the same --kv"},
		{"symmetric codes", h.Symmetric, peer.Symmetric, "give both workers the same --kv"},
		{"number of layers", h.Layers, peer.Layers, ""},
		{"number of KV heads", h.KVHeads, peer.KVHeads, ""},
		{"head_dim", h.HeadDim, peer.HeadDim, ""},
		{"exact page size", h.ExactBytes, peer.ExactBytes, "run the same terse on both"},
		{"coded page size", h.CodedBytes, peer.CodedBytes, "run the same terse on both"},
	} {
		if c.mine != c.your {
			msg := fmt.Sprintf("workers do not match: %s of %s (%s) is %v, of %s (%s) %v", c.what, h.Worker, h.Model, c.mine, peer.Worker, peer.Model, c.your)
			if c.hint != "" {
				msg += "; " + c.hint
			}
			return &terse.Error{Code: terse.CodeMismatch, Message: msg}
		}
	}
	return nil
}

func decodeHello(b []byte) (Hello, error) {
	var h Hello
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("cannot read the peer's hello: %w", err)
	}
	return h, nil
}
