package transfer

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Hello is what two workers must agree on before any KV moves.
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
	CodedBytes  int // of all layers, where they are not alike
	// Numerics names the kernels that compute KV. It need not agree; but parts
	// of one prompt are taken from two workers only where it does.
	Numerics string
}

// NewHello fills in what follows from the geometry.
func NewHello(worker, model, modelHash, calibration string, g *quant.Geometry) Hello {
	coded := g.CodedPage()
	if g.Even() {
		coded = g.CodedBytes()
	}
	return Hello{
		Worker: worker, Model: model, ModelHash: modelHash, Calibration: calibration,
		Format: g.Format.Name, Symmetric: g.Format.Symmetric,
		Layers: g.Layers, KVHeads: g.KVHeads, HeadDim: g.HeadDim,
		ExactBytes: g.ExactBytes(), CodedBytes: coded,
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
	if h.Layers <= 0 {
		return h, fmt.Errorf("the peer's hello says %d layers", h.Layers)
	}
	return h, nil
}

// opening is the payload of Open and of Challenge: before it, neither side
// knows whether the other has the key, and says nothing else.
type opening struct {
	Nonce  []byte
	Sealed bool // has a cluster key
}

func decodeOpening(b []byte) (opening, error) {
	var o opening
	if err := json.Unmarshal(b, &o); err != nil || len(o.Nonce) != nonceLen {
		return o, fmt.Errorf("cannot read how the peer opens the connection (%d bytes)", len(b))
	}
	return o, nil
}

func (l *link) sendJSON(kind frameType, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.send(header{kind: kind}, b)
}

// greet is the decoder's side of the handshake.
func (l *link) greet(mine Hello, key []byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(l.to.Hello))
	nonce := newNonce()
	if err := l.sendJSON(frameOpen, opening{nonce, key != nil}); err != nil {
		return err
	}
	_, b, err := l.expect(frameChallenge)
	if err != nil {
		return err
	}
	theirs, err := decodeOpening(b)
	if err != nil {
		return err
	}
	if err := sameKeys(key != nil, theirs.Sealed); err != nil {
		return err
	}
	if key != nil {
		if l.wseal, l.rseal, err = newSeals(key, nonce, theirs.Nonce); err != nil {
			return err
		}
	}
	if err := l.sendJSON(frameHello, mine); err != nil {
		return err
	}
	if _, b, err = l.expect(frameHello); err != nil {
		return err
	}
	peer, err := decodeHello(b)
	if err != nil {
		return err
	}
	l.peer = peer
	l.conn.SetWriteDeadline(time.Time{})
	return mine.match(peer)
}

// welcome is the prefiller's side of the handshake. Nothing of this worker is
// said before the peer has shown that it has the key.
func (l *link) welcome(mine Hello, key []byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(l.to.Hello))
	_, b, err := l.expect(frameOpen)
	if err != nil {
		return err
	}
	theirs, err := decodeOpening(b)
	if err != nil {
		return err
	}
	if err := sameKeys(key != nil, theirs.Sealed); err != nil {
		return err
	}
	nonce := newNonce()
	if err := l.sendJSON(frameChallenge, opening{nonce, key != nil}); err != nil {
		return err
	}
	var up, down *seal
	if key != nil {
		if up, down, err = newSeals(key, theirs.Nonce, nonce); err != nil {
			return err
		}
	}
	l.rseal = up
	_, b, err = l.expect(frameHello)
	if err == errSeal {
		return &terse.Error{Code: terse.CodeUnauthorized, Message: "the peer's cluster key is another one: give all workers the same --cluster-key-file"}
	}
	if err != nil {
		return err
	}
	peer, err := decodeHello(b)
	if err != nil {
		return err
	}
	l.wseal = down
	if err := mine.match(peer); err != nil {
		return err
	}
	l.peer = peer
	defer l.conn.SetWriteDeadline(time.Time{})
	return l.sendJSON(frameHello, mine)
}

// sameKeys refuses a pair of which only one side has a cluster key.
func sameKeys(mine, theirs bool) error {
	switch {
	case mine && !theirs:
		return &terse.Error{Code: terse.CodeUnauthorized, Message: "this cluster has a key and the peer shows none: give all workers the same --cluster-key-file"}
	case theirs && !mine:
		return &terse.Error{Code: terse.CodeUnauthorized, Message: "the peer has a cluster key and this worker none: give all workers the same --cluster-key-file"}
	}
	return nil
}
