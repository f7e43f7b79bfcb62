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
// (after RoPE) and of V per layer, KV head and channel.
type Calibration struct {
	Layers, KVHeads, HeadDim int
	KMean, VMean             []float32 // [Layers][KVHeads][HeadDim]
	Hash                     [32]byte  // sha256 of the file; part of the handshake
}

// calibrationHeader is the file's first line, JSON. The means follow as little-
// endian float32: all of K's, then all of V's.
type calibrationHeader struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Layers  int    `json:"layers"`
	KVHeads int    `json:"kv_heads"`
	HeadDim int    `json:"head_dim"`
}

const (
	calibrationFormat  = "terse-calibration"
	calibrationVersion = 1
	maxCalibrationLine = 1 << 10
	maxCalibrationDim  = 1 << 12 // of each: far above any model
	maxCalibrationSize = 1 << 26 // bytes of means
)

// ReadCalibration reads a calibration file. It allocates in step with what it
// reads, at most 64 MiB, whatever the header claims.
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
	if h.Format != calibrationFormat || h.Version != calibrationVersion {
		return nil, fmt.Errorf("it is %q version %d, want %q version %d", h.Format, h.Version, calibrationFormat, calibrationVersion)
	}
	c := &Calibration{Layers: h.Layers, KVHeads: h.KVHeads, HeadDim: h.HeadDim, Hash: sha256.Sum256(data)}
	n, err := c.elems()
	if err != nil {
		return nil, err
	}
	if len(body) != 8*n {
		return nil, fmt.Errorf("its shape [%d,%d,%d] wants %d bytes of means, found %d", h.Layers, h.KVHeads, h.HeadDim, 8*n, len(body))
	}
	c.KMean, c.VMean = floats(body[:4*n]), floats(body[4*n:])
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
func (c *Calibration) elems() (int, error) {
	for _, n := range []int{c.Layers, c.KVHeads, c.HeadDim} {
		if n < 1 || n > maxCalibrationDim {
			return 0, fmt.Errorf("its shape is [%d,%d,%d]; each must be from 1 to %d", c.Layers, c.KVHeads, c.HeadDim, maxCalibrationDim)
		}
	}
	n := c.Layers * c.KVHeads * c.HeadDim
	if 8*n > maxCalibrationSize {
		return 0, fmt.Errorf("its shape [%d,%d,%d] wants more than %d bytes of means", c.Layers, c.KVHeads, c.HeadDim, maxCalibrationSize)
	}
	return n, nil
}

// check refuses means that do not fit the shape or would poison a cache.
func (c *Calibration) check() error {
	n, err := c.elems()
	if err != nil {
		return err
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
	h := calibrationHeader{calibrationFormat, calibrationVersion, c.Layers, c.KVHeads, c.HeadDim}
	data, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("cannot write the calibration: %w", err)
	}
	data = append(data, '\n')
	for _, x := range [][]float32{c.KMean, c.VMean} {
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
