package quant

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Calibration is what `terse calibrate` learned of a model: the means of K
// (after RoPE) and of V per layer, KV head and channel, and the balanced basis
// of K.
type Calibration struct {
	Layers, KVHeads, HeadDim int
	KMean, VMean             []float32 // [Layers][KVHeads][HeadDim]
	// KBasis has, per layer and KV head, the matrix that takes K less its mean into
	// the balanced basis, channels in falling order of what they do to the
	// scores: [Layers][KVHeads][HeadDim out][HeadDim in]; nil where a file has none.
	KBasis []float32
	// KPlan has, per layer, how many leading channels of the balanced basis have 4
	// bits in formats with budgets (k2=plan): multiples of 16, or HeadDim; nil where
	// a file has none.
	KPlan []uint16
	// KGain has, per layer and KV head, what multiplies the leading 16, 32, … < HeadDim
	// channels of the balanced basis where they share their scale with the others:
	// [Layers][KVHeads][(HeadDim-1)/16].
	KGain []float32
	// KHarm has, per layer, what 0, 16, 32, … HeadDim leading channels in 4 bits leave
	// of coding K's harm: KL of attention weights in nats, mean over heads and queries.
	// Plans for any budget follow from it. [Layers][Leadings(HeadDim)]; nil where a
	// file has none.
	KHarm []float32
	// HeadQ has, per layer, the rank of the residual of K that formats keep (arXiv
	// 2605.03562), 0, and the harm, as in KHarm, that rank 1, 2 and 4 would leave
	// instead of channels in 4 bits; nil where a file has none.
	HeadQ []float32
	NUQ   *NUQ // kvquant's codebooks; nil where a file has none
	// Levels has how often cachegen's levels come, per layer, K and V, and channel of
	// all KV heads: frequencies that sum to entropy.Total, the least level first; nil
	// where a file has none.
	Levels []uint16
	// Deltas has the same of cachegen,delta=10, where the distributions of a half
	// follow that of its anchors' 255 levels, all channels together.
	Deltas []uint16
	Hash   [32]byte // sha256 of the file; part of the handshake
}

// calibrationHeader is the file's first line, JSON. The sections follow in its
// order, without gaps. Versions 1 and 2 list none: they have all means of K and of
// V, and version 2 the bases of K after them.
type calibrationHeader struct {
	Format   string          `json:"format"`
	Version  int             `json:"version"`
	Layers   int             `json:"layers"`
	KVHeads  int             `json:"kv_heads"`
	HeadDim  int             `json:"head_dim"`
	Sections []sectionHeader `json:"sections,omitempty"`
}

type sectionHeader struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

const (
	calibrationFormat  = "terse-calibration"
	calibrationVersion = 3       // what is written
	maxCalibrationLine = 1 << 12 // bytes
	maxCalibrationDim  = 1 << 12 // of each: far above any model
	maxCalibrationSize = 1 << 27 // bytes of all sections
)

// ReadCalibration reads a calibration file. It allocates in step with what it
// reads, at most 128 MiB, whatever the header claims.
func ReadCalibration(r io.Reader) (*Calibration, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxCalibrationLine+maxCalibrationSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the calibration: %w", err)
	}
	c, err := parseCalibration(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read the calibration: %w", err)
	}
	return c, nil
}

func parseCalibration(data []byte) (*Calibration, error) {
	line, body, ok := bytes.Cut(data, []byte("\n"))
	if !ok || len(line) > maxCalibrationLine {
		return nil, errors.New("it does not start with a line of JSON; make it with terse calibrate")
	}
	var h calibrationHeader
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return nil, fmt.Errorf("its first line: %w", err)
	}
	if h.Format != calibrationFormat || h.Version < 1 || h.Version > calibrationVersion {
		return nil, fmt.Errorf("it is %q version %d, want %q version 1 to %d", h.Format, h.Version, calibrationFormat, calibrationVersion)
	}
	c := &Calibration{Layers: h.Layers, KVHeads: h.KVHeads, HeadDim: h.HeadDim, Hash: sha256.Sum256(data)}
	n, err := c.elems()
	if err != nil {
		return nil, err
	}
	if h.Version < 3 {
		if h.Sections != nil {
			return nil, fmt.Errorf("it has sections, which version %d has not", h.Version)
		}
		h.Sections = []sectionHeader{{"k_mean", 4 * n}, {"v_mean", 4 * n}}
		if h.Version == 2 {
			h.Sections = append(h.Sections, sectionHeader{"k_basis", 4 * n * h.HeadDim})
		}
	}
	if err := c.readSections(h.Sections, body); err != nil {
		return nil, err
	}
	return c, c.check()
}

// fits refuses calibrations of models of another shape.
func (c *Calibration) fits(g *Geometry) error {
	if c.Layers != g.Layers || c.KVHeads != g.KVHeads || c.HeadDim != g.HeadDim {
		return fmt.Errorf("it is of a model with %d layers, %d KV heads, head_dim %d, this one has %d, %d, %d; run terse calibrate on this model",
			c.Layers, c.KVHeads, c.HeadDim, g.Layers, g.KVHeads, g.HeadDim)
	}
	return nil
}

// elems is the number of means of K (and of V) that c's shape wants.
func (c *Calibration) elems() (int, error) {
	for _, n := range []int{c.Layers, c.KVHeads, c.HeadDim} {
		if n < 1 || n > maxCalibrationDim {
			return 0, fmt.Errorf("its shape is [%d,%d,%d]; each must be from 1 to %d", c.Layers, c.KVHeads, c.HeadDim, maxCalibrationDim)
		}
	}
	n := c.Layers * c.KVHeads * c.HeadDim
	if n > maxCalibrationSize/8 {
		return 0, fmt.Errorf("its shape [%d,%d,%d] wants more than %d bytes", c.Layers, c.KVHeads, c.HeadDim, maxCalibrationSize)
	}
	return n, nil
}

// check refuses numbers that do not fit the shape or would poison a cache. That
// a basis can be undone is checked where it is used ([NewTransform]).
func (c *Calibration) check() error {
	if _, err := c.elems(); err != nil {
		return err
	}
	size := 0
	for _, s := range calibrationSections() {
		body := s.get(c)
		size += len(body)
		if body == nil && !s.required {
			continue
		}
		if err := s.check(c); err != nil {
			return fmt.Errorf("its section %s: %w", s.name, err)
		}
	}
	if size > maxCalibrationSize {
		return fmt.Errorf("its sections take %d bytes, more than %d", size, maxCalibrationSize)
	}
	return nil
}

// WriteCalibration writes c's file and sets c.Hash to what its readers will
// find.
func WriteCalibration(w io.Writer, c *Calibration) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	h := calibrationHeader{Format: calibrationFormat, Version: calibrationVersion, Layers: c.Layers, KVHeads: c.KVHeads, HeadDim: c.HeadDim}
	var body []byte
	for _, s := range calibrationSections() {
		if b := s.get(c); b != nil {
			h.Sections = append(h.Sections, sectionHeader{s.name, len(b)})
			body = append(body, b...)
		}
	}
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	data = append(append(data, '\n'), body...)
	c.Hash = sha256.Sum256(data)
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	return nil
}
