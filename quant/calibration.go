package quant

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// Calibration is what `terse calibrate` learned of a model: the means of K
// (after RoPE) and of V per layer, KV head and channel, and the balanced basis
// of K.
type Calibration struct {
	Layers, KVHeads, HeadDim int
	KMean, VMean             []float32 // [Layers][KVHeads][HeadDim]
	// KBasis has, per layer and KV head, the matrix that takes K less its mean into
	// the balanced basis, channels in falling order of what they do to the
	// scores: [Layers][KVHeads][HeadDim out][HeadDim in]; nil in files of version 1.
	KBasis []float32
	Hash   [32]byte // sha256 of the file; part of the handshake
}

// calibrationHeader is the file's first line, JSON. Little-endian float32
// follow: all means of K, all means of V, and in version 2 the bases of K.
type calibrationHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Layers  int    `json:"layers"`
	KVHeads int    `json:"kv_heads"`
	HeadDim int    `json:"head_dim"`
}

const (
	calibrationFormat  = "terse-calibration"
	maxCalibrationLine = 1 << 10
	maxCalibrationDim  = 1 << 12 // of each: far above any model
	maxCalibrationSize = 1 << 27 // bytes of means and bases
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
	if h.Format != calibrationFormat || h.Version != 1 && h.Version != 2 {
		return nil, fmt.Errorf("it is %q version %d, want %q version 1 or 2", h.Format, h.Version, calibrationFormat)
	}
	c := &Calibration{Layers: h.Layers, KVHeads: h.KVHeads, HeadDim: h.HeadDim, Hash: sha256.Sum256(data)}
	n, err := c.elems(h.Version == 2)
	if err != nil {
		return nil, err
	}
	size := 8 * n
	if h.Version == 2 {
		size += 4 * n * h.HeadDim
	}
	if len(body) != size {
		return nil, fmt.Errorf("its shape [%d,%d,%d] wants %d bytes in version %d, found %d", h.Layers, h.KVHeads, h.HeadDim, size, h.Version, len(body))
	}
	c.KMean, c.VMean = floats(body[:4*n]), floats(body[4*n:8*n])
	if h.Version == 2 {
		c.KBasis = floats(body[8*n:])
	}
	return c, c.check()
}

func floats(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

// elems is the number of means of K (and of V) that c's shape wants.
func (c *Calibration) elems(bases bool) (int, error) {
	for _, n := range []int{c.Layers, c.KVHeads, c.HeadDim} {
		if n < 1 || n > maxCalibrationDim {
			return 0, fmt.Errorf("its shape is [%d,%d,%d]; each must be from 1 to %d", c.Layers, c.KVHeads, c.HeadDim, maxCalibrationDim)
		}
	}
	n, each := c.Layers*c.KVHeads*c.HeadDim, 8
	if bases {
		each += 4 * c.HeadDim
	}
	if n > maxCalibrationSize/each {
		return 0, fmt.Errorf("its shape [%d,%d,%d] wants more than %d bytes", c.Layers, c.KVHeads, c.HeadDim, maxCalibrationSize)
	}
	return n, nil
}

// check refuses numbers that do not fit the shape or would poison a cache. That
// a basis can be undone is checked where it is used ([NewTransform]).
func (c *Calibration) check() error {
	n, err := c.elems(c.KBasis != nil)
	if err != nil {
		return err
	}
	if c.KBasis != nil && len(c.KBasis) != n*c.HeadDim {
		return fmt.Errorf("its shape [%d,%d,%d] wants bases of %d numbers, found %d", c.Layers, c.KVHeads, c.HeadDim, n*c.HeadDim, len(c.KBasis))
	}
	for i, v := range c.KBasis {
		if !(v >= -maxF16 && v <= maxF16) { // NaN too
			return fmt.Errorf("number %d of the bases is %g, outside float16's range", i, v)
		}
	}
	for name, x := range map[string][]float32{"K": c.KMean, "V": c.VMean} {
		if len(x) != n {
			return fmt.Errorf("its shape [%d,%d,%d] wants %d means of %s, found %d", c.Layers, c.KVHeads, c.HeadDim, n, name, len(x))
		}
		for i, v := range x {
			if !(v >= -maxF16 && v <= maxF16) { // NaN too
				return fmt.Errorf("mean %d of %s is %g, outside float16's range", i, name, v)
			}
		}
	}
	return nil
}

// WriteCalibration writes c's file and sets c.Hash to what its readers will
// find.
func WriteCalibration(w io.Writer, c *Calibration) error {
	if err := c.check(); err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	h := calibrationHeader{calibrationFormat, 1, c.Layers, c.KVHeads, c.HeadDim}
	if c.KBasis != nil {
		h.Version = 2
	}
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	data = append(data, '\n')
	for _, x := range [][]float32{c.KMean, c.VMean, c.KBasis} {
		for _, v := range x {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
	}
	c.Hash = sha256.Sum256(data)
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	return nil
}
