package quant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/terse-llm/terse/quant/entropy"
	"github.com/terse-llm/terse/tensor"
)

// levelTables are the distributions of one layer's levels: of a half, those of all
// channels of all KV heads, or one for all.
type levelTables struct {
	halves     [2][]*entropy.Table
	anchors    [2]*entropy.Table // of anchors' levels, all channels
	bits       float64           // that a token's levels take, if they come as the distributions say
	anchorBits float64           // and an anchor's
}

// of is the distribution of a channel of all heads' channels.
func (l *levelTables) of(half, channel int) *entropy.Table {
	return l.halves[half][channel%len(l.halves[half])]
}

// Packs reports whether coded pages cross the wire range-coded: as Pack makes them.
func (g *Geometry) Packs() bool { return g.Format.Family == FamilyCacheGen }

// unprofiled sets distributions that suit no model in particular: a level is 3/4 as
// frequent as the next one nearer to zero, and all of an anchor's are alike.
func (g *Geometry) unprofiled() {
	var f []uint16
	for half := range 2 {
		most := g.Group.Halves[half].Most
		counts := make([]uint64, 2*most+1)
		for k := -most; k <= most; k++ {
			counts[k+most] = uint64(1) << (2 * most) // times (3/4)^|k|, in whole numbers
			for range max(k, -k) {
				counts[k+most] = counts[k+most] / 4 * 3
			}
		}
		if g.Group.Delta > 0 {
			f = append(f, entropy.Frequencies(make([]uint64, 2*anchorLevel+1))...)
		}
		f = append(f, entropy.Frequencies(counts)...)
	}
	if _, err := g.setTables(f, 1); err != nil {
		panic("BUG: " + err.Error())
	}
}

// setTables makes a layer's distributions of n channels, which come first in f: of a
// half, of anchors where there are some, and then of the channels. It returns the rest.
func (g *Geometry) setTables(f []uint16, n int) (rest []uint16, err error) {
	t := &levelTables{}
	channels := float64(g.KVHeads * g.HeadDim)
	for half := range 2 {
		if g.Group.Delta > 0 {
			const levels = 2*anchorLevel + 1
			if t.anchors[half], err = entropy.NewTable(f[:levels]); err != nil {
				return nil, fmt.Errorf("levels of anchors: %w", err)
			}
			t.anchorBits += entropy.Bits(f[:levels]) * channels
			f = f[levels:]
		}
		levels := 2*g.Group.Halves[half].Most + 1
		for c := range n {
			table, err := entropy.NewTable(f[:levels])
			if err != nil {
				return nil, fmt.Errorf("levels of channel %d: %w", c, err)
			}
			t.halves[half] = append(t.halves[half], table)
			t.bits += entropy.Bits(f[:levels]) / float64(n) * channels
			f = f[levels:]
		}
	}
	g.tables = t
	return f, nil
}

// Profiled is g with the distributions that a calibration has of the model's levels;
// g itself where its format, or the calibration, has no use for, or none of, them. Both
// sides of a wire need the same.
func (g *Geometry) Profiled(cal *Calibration) (*Geometry, error) {
	if !g.Packs() || cal == nil {
		return g, nil
	}
	f := cal.Levels
	if g.Format.Delta > 0 {
		f = cal.Deltas
	}
	if f == nil {
		return g, nil
	}
	if cal.Layers != g.Layers || cal.KVHeads != g.KVHeads || cal.HeadDim != g.HeadDim {
		return nil, fmt.Errorf("cannot use the calibration: it is of a model of another shape than %d layers, %d KV heads, head_dim %d; run terse calibrate on this model", g.Layers, g.KVHeads, g.HeadDim)
	}
	out := *g
	out.layers = make([]*Geometry, g.Layers)
	for i := range out.layers {
		layer, err := *g.layers[i], error(nil)
		if f, err = layer.setTables(f, g.KVHeads*g.HeadDim); err != nil {
			return nil, fmt.Errorf("cannot use the calibration: layer %d: %w", i, err)
		}
		out.layers[i] = &layer
	}
	return &out, nil
}

// PackScratch is what Pack and Unpack need so as not to allocate. The zero value is
// ready; it serves one call at a time.
type PackScratch struct {
	coder  entropy.Encoder
	levels []uint8               // of one head's half: [channel][token], as symbols
	apart  [2][groupTokens]uint8 // of a channel, anchors and the others
}

// packPlain, in the length of a packed page, says that its levels are not coded.
const packPlain = 1 << 31

// PackedMost is the most bytes that the first tokens of a layer of a page take
// packed.
func (g *Geometry) PackedMost(tokens int) int {
	return 4 + 4*tokens + g.plainBytes(tokens)
}

// PackedTypical is what they take if levels are distributed as they are said to be.
func (g *Geometry) PackedTypical(tokens int) int {
	return min(g.PackedMost(tokens), 4+4*tokens+entropy.Bound(0)+int(math.Ceil(g.tokenBits(tokens)/8)))
}

// tokenBits is what tokens' levels take if they come as they are said to.
func (g *Geometry) tokenBits(tokens int) float64 {
	anchors := g.Group.anchors(tokens)
	return float64(anchors)*g.tables.anchorBits + float64(tokens-anchors)*g.tables.bits
}

// anchors is how many of the first tokens of a page are anchors.
func (l *GroupLayout) anchors(tokens int) int {
	if l.Delta == 0 {
		return 0
	}
	return (tokens + l.Delta - 1) / l.Delta
}

// plainBytes is the size of levels that are not coded.
func (g *Geometry) plainBytes(tokens int) int {
	n := 0
	for half := range g.Group.Halves {
		n += g.KVHeads * g.HeadDim * g.Group.Halves[half].rowBytes(tokens)
	}
	return n
}

// rowBytes is the size of a channel's levels of tokens, not coded.
func (h *GroupHalf) rowBytes(tokens int) int { return (tokens*h.Bits + 7) / 8 }

// Pack appends the first tokens of one layer of a coded page as the wire carries
// them; g is that layer's. docs/formats.md has the bytes.
func (g *Geometry) Pack(dst, page []byte, tokens int, s *PackScratch) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	for half := range 2 {
		scales := g.CodedHead(page, 0)[g.Group.Halves[half].Scales:]
		dst = append(dst, scales[:2*tokens]...)
	}
	s.coder.Reset()
	for half := HalfV; half >= HalfK; half-- {
		for head := g.KVHeads - 1; head >= 0; head-- {
			g.takeLevels(s, page, half, head, tokens)
			for c := g.HeadDim - 1; c >= 0; c-- {
				g.code(s, half, head*g.HeadDim+c, s.levels[c*groupTokens:c*groupTokens+tokens])
			}
		}
	}
	plain := uint32(0)
	if s.coder.Len() < g.plainBytes(tokens) {
		dst = s.coder.Append(dst)
	} else {
		dst, plain = g.appendPlain(dst, page, tokens, s), packPlain
	}
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-4)|plain)
	return dst
}

// code codes a channel's symbols: anchors, and then the others.
func (g *Geometry) code(s *PackScratch, half, channel int, row []uint8) {
	n := g.Group.anchors(len(row))
	if n > 0 {
		anchors, others := 0, 0
		for t, x := range row {
			if g.Group.anchor(t) == t {
				s.apart[0][anchors] = x
				anchors++
			} else {
				s.apart[1][others] = x
				others++
			}
		}
		row = s.apart[1][:others]
	}
	s.coder.Run(row, g.tables.of(half, channel))
	if n > 0 {
		s.coder.Run(s.apart[0][:n], g.tables.anchors[half])
	}
}

// decode is code's inverse.
func (g *Geometry) decode(d *entropy.Decoder, s *PackScratch, half, channel int, row []uint8) {
	n := g.Group.anchors(len(row))
	if n == 0 {
		d.Run(row, g.tables.of(half, channel))
		return
	}
	anchors, others := s.apart[0][:n], s.apart[1][:len(row)-n]
	d.Run(anchors, g.tables.anchors[half])
	d.Run(others, g.tables.of(half, channel))
	for t := range row {
		from := &others
		if g.Group.anchor(t) == t {
			from = &anchors
		}
		row[t], *from = (*from)[0], (*from)[1:]
	}
}

// takeLevels reads a head's half into s.levels.
func (g *Geometry) takeLevels(s *PackScratch, page []byte, half, head, tokens int) {
	l := &g.Group
	if n := l.Width * groupTokens; len(s.levels) < n {
		s.levels = make([]uint8, n)
	}
	l.takeLevels(s.levels, g.CodedHead(page, head), half, tokens)
}

// appendPlain appends the levels as they are, two to a byte where there are 15.
func (g *Geometry) appendPlain(dst, page []byte, tokens int, s *PackScratch) []byte {
	for half := range 2 {
		h := &g.Group.Halves[half]
		for head := range g.KVHeads {
			g.takeLevels(s, page, half, head, tokens)
			for c := range g.HeadDim {
				row := s.levels[c*groupTokens : c*groupTokens+tokens]
				if h.Bits == 8 {
					dst = append(dst, row...)
					continue
				}
				for t := 0; t < tokens; t += 2 {
					b := row[t]
					if t+1 < tokens {
						b |= row[t+1] << 4
					}
					dst = append(dst, b)
				}
			}
		}
	}
	return dst
}

// PackedLen is the length of what Pack appended, at the head of data, which may come
// from anywhere.
func (g *Geometry) PackedLen(data []byte, tokens int) (int, error) {
	if len(data) < 4 {
		return 0, errors.New("a packed page without its length")
	}
	n := int(binary.LittleEndian.Uint32(data) &^ packPlain)
	if least := 4 * tokens; n < least || n > g.PackedMost(tokens)-4 {
		return 0, fmt.Errorf("a packed page of %d bytes where %d to %d may be", n, least, g.PackedMost(tokens)-4)
	}
	if len(data)-4 < n {
		return 0, fmt.Errorf("a packed page of %d bytes in %d", n, len(data)-4)
	}
	return 4 + n, nil
}

// Unpack writes what Pack appended into one layer of a page: the bytes that Encode
// made. data must have passed PackedLen. On an error the page holds codes that mean
// nothing, but codes.
func (g *Geometry) Unpack(page, data []byte, tokens int, s *PackScratch) error {
	page = page[:g.CodedBytes()]
	clear(page)
	plain := binary.LittleEndian.Uint32(data)&packPlain != 0
	scales, data := data[4:4+4*tokens], data[4+4*tokens:]
	for half := range 2 {
		for t := range tokens {
			scale := tensor.GetF16(scales, half*tokens+t)
			if !(scale >= 0 && scale <= maxCacheGenScale) || math.Signbit(float64(scale)) {
				return fmt.Errorf("a scale of %g in a packed page", scale)
			}
			for head := range g.KVHeads {
				g.Group.putScale(g.CodedHead(page, head), half, t, scale)
			}
		}
	}
	if plain {
		return g.unpackPlain(page, data, tokens, s)
	}
	d, err := entropy.NewDecoder(data)
	if err != nil {
		return err
	}
	return g.putLevels(page, tokens, s, func(half, channel int, row []uint8) error {
		g.decode(&d, s, half, channel, row)
		return nil
	}, d.Close)
}

// putLevels fills a page with levels that next gives, channel by channel.
func (g *Geometry) putLevels(page []byte, tokens int, s *PackScratch, next func(half, channel int, row []uint8) error, end func() error) error {
	l := &g.Group
	if n := l.Width * groupTokens; len(s.levels) < n {
		s.levels = make([]uint8, n)
	}
	for half := range 2 {
		for head := range g.KVHeads {
			for c := range g.HeadDim {
				if err := next(half, head*g.HeadDim+c, s.levels[c*groupTokens:c*groupTokens+tokens]); err != nil {
					return err
				}
			}
			l.putLevels(g.CodedHead(page, head), half, s.levels, tokens)
		}
	}
	return end()
}

func (g *Geometry) unpackPlain(page, data []byte, tokens int, s *PackScratch) error {
	if len(data) != g.plainBytes(tokens) {
		return fmt.Errorf("%d bytes of levels in a packed page, not %d", len(data), g.plainBytes(tokens))
	}
	return g.putLevels(page, tokens, s, func(half, _ int, row []uint8) error {
		h := &g.Group.Halves[half]
		own := data[:h.rowBytes(tokens)]
		data = data[len(own):]
		for t := range row {
			if h.Bits == 8 {
				row[t] = own[t]
			} else {
				row[t] = own[t/2] >> (4 * (t % 2)) & 0xf
			}
			if most := g.Group.most(half, t); int(row[t]) > 2*most {
				return fmt.Errorf("level %d of %d in a packed page", row[t], 2*most+1)
			}
		}
		return nil
	}, func() error { return nil })
}
