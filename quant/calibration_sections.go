package quant

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"

	"github.com/terse-llm/terse/quant/entropy"
)

// section is one part of a calibration file: what a kind of measurement left. A
// file has each at most once, in the order of [calibrationSections], so that equal
// calibrations are equal files.
type section struct {
	name     string
	required bool
	get      func(c *Calibration) []byte // nil: c has none
	put      func(c *Calibration, body []byte) error
	check    func(c *Calibration) error // of what put, or a caller, left in c
}

// calibrationSections are all that a file may have. Readers refuse others: what
// they cannot apply would make their codes differ from those of a worker that can.
func calibrationSections() []section {
	means := func(c *Calibration) int { return c.Layers * c.KVHeads * c.HeadDim }
	bases := func(c *Calibration) int { return means(c) * c.HeadDim }
	return []section{
		floatSection("k_mean", true, means, func(c *Calibration) *[]float32 { return &c.KMean }),
		floatSection("v_mean", true, means, func(c *Calibration) *[]float32 { return &c.VMean }),
		floatSection("k_basis", false, bases, func(c *Calibration) *[]float32 { return &c.KBasis }),
		nuqSection(),
		levelSection("cachegen_levels", 0, func(c *Calibration) *[]uint16 { return &c.Levels }),
		levelSection("cachegen_deltas", 2*anchorLevel+1, func(c *Calibration) *[]uint16 { return &c.Deltas }),
		floatSection("k_gain", false, (*Calibration).gains, func(c *Calibration) *[]float32 { return &c.KGain }),
		planSection(),
		floatSection("k_harm", false, func(c *Calibration) int { return c.Layers * len(Leadings(c.HeadDim)) }, func(c *Calibration) *[]float32 { return &c.KHarm }),
		headQSection(),
	}
}

// readSections hands every section its part of body.
func (c *Calibration) readSections(headers []sectionHeader, body []byte) error {
	rest := calibrationSections()
	for _, h := range headers {
		for len(rest) > 0 && rest[0].name != h.Name {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			return fmt.Errorf("its section %q is unknown, there twice or out of order; run terse calibrate again, or a newer terse", h.Name)
		}
		if h.Bytes < 0 || h.Bytes > len(body) {
			return fmt.Errorf("its section %s of %d bytes ends after the file", h.Name, h.Bytes)
		}
		if err := rest[0].put(c, body[:h.Bytes]); err != nil {
			return fmt.Errorf("its section %s: %w", h.Name, err)
		}
		rest, body = rest[1:], body[h.Bytes:]
	}
	if len(body) > 0 {
		return fmt.Errorf("%d bytes follow its last section", len(body))
	}
	return nil
}

// floatSection is a section of count little-endian float32 within float16's range.
func floatSection(name string, required bool, count func(*Calibration) int, field func(*Calibration) *[]float32) section {
	return section{name: name, required: required,
		get: func(c *Calibration) []byte { return floatBytes(*field(c)) },
		put: func(c *Calibration, body []byte) error {
			if want := 4 * count(c); len(body) != want {
				return fmt.Errorf("its shape [%d,%d,%d] wants %d bytes, found %d", c.Layers, c.KVHeads, c.HeadDim, want, len(body))
			}
			*field(c) = floats(body)
			return nil
		},
		check: func(c *Calibration) error {
			if want, x := count(c), *field(c); len(x) != want {
				return fmt.Errorf("its shape [%d,%d,%d] wants %d numbers, found %d", c.Layers, c.KVHeads, c.HeadDim, want, len(x))
			}
			return checkFloats(*field(c), -maxF16, maxF16)
		}}
}

// levelSection is the frequencies of cachegen's levels, u16, and before those of every
// half those of so many levels of its anchors.
func levelSection(name string, anchors int, field func(*Calibration) *[]uint16) section {
	return section{name: name,
		get: func(c *Calibration) []byte {
			if *field(c) == nil {
				return nil
			}
			b := make([]byte, 0, 2*len(*field(c)))
			for _, v := range *field(c) {
				b = binary.LittleEndian.AppendUint16(b, v)
			}
			return b
		},
		put: func(c *Calibration, body []byte) error {
			if want := 2 * c.levelCount(anchors); len(body) != want {
				return fmt.Errorf("its shape [%d,%d,%d] wants %d bytes, found %d", c.Layers, c.KVHeads, c.HeadDim, want, len(body))
			}
			f := make([]uint16, len(body)/2)
			for i := range f {
				f[i] = binary.LittleEndian.Uint16(body[2*i:])
			}
			*field(c) = f
			return nil
		},
		check: func(c *Calibration) error {
			rest := *field(c)
			if want := c.levelCount(anchors); len(rest) != want {
				return fmt.Errorf("its shape [%d,%d,%d] wants %d numbers, found %d", c.Layers, c.KVHeads, c.HeadDim, want, len(rest))
			}
			for i, levels := range c.levelSizes(anchors) {
				sum := 0
				for _, f := range rest[:levels] {
					sum += int(f)
					if f == 0 {
						sum = -1 << 30
					}
				}
				if sum != entropy.Total {
					return fmt.Errorf("the levels of distribution %d are no frequencies that sum to %d", i, entropy.Total)
				}
				rest = rest[levels:]
			}
			return nil
		}}
}

// levelCount is the number of frequencies in Levels (Deltas).
func (c *Calibration) levelCount(anchors int) (n int) {
	for layer := range c.Layers {
		k, v := cacheGenBits(layer, c.Layers)
		n += 2*anchors + c.KVHeads*c.HeadDim*(levelsOf(k)+levelsOf(v))
	}
	return n
}

// levelSizes are the numbers of levels of the distributions in Levels (Deltas), in
// order.
func (c *Calibration) levelSizes(anchors int) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		i := 0
		for layer := range c.Layers {
			k, v := cacheGenBits(layer, c.Layers)
			for _, bits := range []int{k, v} {
				if anchors > 0 {
					if !yield(i, anchors) {
						return
					}
					i++
				}
				for range c.KVHeads * c.HeadDim {
					if !yield(i, levelsOf(bits)) {
						return
					}
					i++
				}
			}
		}
	}
}

// checkFloats refuses numbers outside [lo, hi], NaN among them.
func checkFloats(x []float32, lo, hi float32) error {
	for i, v := range x {
		if !(v >= lo && v <= hi) {
			return fmt.Errorf("number %d is %g, outside %g to %g", i, v, lo, hi)
		}
	}
	return nil
}

// floatBytes is x as little-endian float32; nil where x is.
func floatBytes(x []float32) []byte {
	if x == nil {
		return nil
	}
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func floats(b []byte) []float32 {
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}
