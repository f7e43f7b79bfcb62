package fused

import (
	"encoding/binary"

	"github.com/terse-llm/terse/tensor"
)

const (
	pageTokens = 64
	groupWidth = 64 // channels that share a scale
)

// Layout says where one KV head's K and V of 64 tokens lie: offsets in bytes. A half
// is the scales and, with 4 bits, the zeros, both float16 [group][token], and then
// the codes:
//
//   - K, 4 bits: [16 tokens][octet of channels][token] uint32, nibble k being channel
//     8·octet + k; 8 bits: [16 tokens][channel][token] int8.
//   - V, 4 bits: [token][group][8] uint32, nibble k of word j being channel 8k + j of
//     the group; 8 bits: [token][channel] int8.
//
// A value is code·scale + zero (4 bits, codes 0 … 15) or code·scale (8 bits, codes
// -127 … 127). Channels are padded to whole groups with zeros of scale 0.
type Layout struct {
	HeadDim, Bits int
	Groups, Width int // Width = 64·Groups channels
	K, V          Half
	Bytes         int
}

// Half is the offsets of K or V.
type Half struct{ Scales, Zeros, Codes int }

// NewLayout lays out heads of d channels in 4 or 8 bits.
func NewLayout(d, bits int) Layout {
	if d < 1 || bits != 4 && bits != 8 {
		panic("BUG: fused pages of other than 4 or 8 bits")
	}
	l := Layout{HeadDim: d, Bits: bits, Groups: (d + groupWidth - 1) / groupWidth}
	l.Width = groupWidth * l.Groups
	for _, h := range []*Half{&l.K, &l.V} {
		h.Scales = l.Bytes
		l.Bytes += 2 * pageTokens * l.Groups
		h.Zeros = l.Bytes
		if bits == 4 {
			l.Bytes += 2 * pageTokens * l.Groups
		}
		h.Codes = l.Bytes
		l.Bytes += pageTokens * l.Width * bits / 8
	}
	return l
}

// Encode codes k and v, [64 tokens][d], to nearest over every group's range.
func (l *Layout) Encode(page []byte, k, v []float32) {
	clear(page[:l.Bytes])
	for t := range pageTokens {
		for g := range l.Groups {
			lo, hi := g*groupWidth, min((g+1)*groupWidth, l.HeadDim)
			l.encode(page, &l.K, t, g, k[t*l.HeadDim+lo:t*l.HeadDim+hi], l.putKey)
			l.encode(page, &l.V, t, g, v[t*l.HeadDim+lo:t*l.HeadDim+hi], l.putValue)
		}
	}
}

func (l *Layout) encode(page []byte, h *Half, t, g int, x []float32, put func(page []byte, t, c int, code int32)) {
	lo, hi := x[0], x[0]
	for _, y := range x {
		lo, hi = min(lo, y), max(hi, y)
	}
	at := 2 * (g*pageTokens + t)
	put16 := func(off int, x float32) float32 {
		half := tensor.F32ToF16(x)
		binary.LittleEndian.PutUint16(page[off+at:], half)
		return tensor.F16ToF32(half)
	}
	var zero, first, last float32
	reach := max(hi, -lo) / 127
	if l.Bits == 4 {
		zero = put16(h.Zeros, lo)
		reach, last = (hi-zero)/15, 15
	} else {
		first, last = -127, 127
	}
	scale := put16(h.Scales, max(reach, 0))
	var inv float32
	if scale > 0 {
		inv = 1 / scale
	}
	for i, y := range x {
		code := min(max((y-zero)*inv, first), last)
		put(page, t, g*groupWidth+i, int32(code-first+0.5)+int32(first))
	}
}

func (l *Layout) putKey(page []byte, t, c int, code int32) {
	codes, run := page[l.K.Codes:], t/16*16*l.Width
	if l.Bits == 8 {
		codes[run+16*c+t%16] = byte(code)
		return
	}
	codes[run/2+c/8*64+t%16*4+c%8/2] |= byte(code << (4 * (c % 2)))
}

func (l *Layout) putValue(page []byte, t, c int, code int32) {
	codes := page[l.V.Codes:]
	if l.Bits == 8 {
		codes[t*l.Width+c] = byte(code)
		return
	}
	k, j := c%groupWidth/8, c%8
	codes[t*l.Width/2+c/groupWidth*32+4*j+k/2] |= byte(code << (4 * (k % 2)))
}
