package quant

import (
	"encoding/binary"

	"github.com/terse-llm/terse/tensor"
)

const (
	groupTokens = 64 // tokens of a page of int8 and int4
	groupWidth  = 64 // channels that share a scale
)

// GroupLayout says where one KV head's K and V lie in a coded page of int8, int4 or
// one layer of cachegen: offsets in bytes from the start of the head. A half is the scales and, with
// 4 bits, the zeros, both float16 [group][token], and then the codes:
//
//   - K, 4 bits: [16 tokens][octet of channels][token] uint32, nibble k being channel
//     8·octet + k; 8 bits: [16 tokens][channel][token] int8.
//   - V, 4 bits: [token][group][8] uint32, nibble k of word j being channel 8k + j of
//     the group; 8 bits: [token][channel] int8.
//
// A value is code·scale + zero (4 bits, codes 0 … 15) or code·scale (8 bits, codes
// -127 … 127). Channels are padded to whole groups with zeros of scale 0.
type GroupLayout struct {
	HeadDim       int
	Groups, Width int // Width = 64·Groups channels
	Halves        [2]GroupHalf
	Bytes         int

	// Of cachegen: the tokens from one anchor to the next, which others are coded as
	// the difference from; 0 where all are coded for themselves.
	Delta int
}

// GroupHalf is the bits of a code and the offsets of K or V, and of cachegen the
// largest level.
type GroupHalf struct{ Bits, Scales, Zeros, Codes, Most int }

// NewGroupLayout lays out heads of d channels, K and V in 4 or 8 bits each.
func NewGroupLayout(d, k, v int) GroupLayout {
	l := GroupLayout{HeadDim: d, Groups: (d + groupWidth - 1) / groupWidth}
	l.Width = groupWidth * l.Groups
	for half, bits := range []int{k, v} {
		if d < 1 || bits != 4 && bits != 8 {
			panic("BUG: groups of other than 4 or 8 bits")
		}
		h := &l.Halves[half]
		h.Bits, h.Most = bits, levelsOf(bits)/2
		h.Scales = l.Bytes
		l.Bytes += 2 * groupTokens * l.Groups
		h.Zeros = l.Bytes
		if bits == 4 {
			l.Bytes += 2 * groupTokens * l.Groups
		}
		h.Codes = l.Bytes
		l.Bytes += groupTokens * l.Width * bits / 8
	}
	return l
}

// Encode codes tokens [lo, hi) of K or V, x being [64 tokens][HeadDim], to nearest
// over every group's range. A token's codes depend on nothing else.
func (l *GroupLayout) Encode(w *Scratch, page []byte, half int, x []float32, lo, hi int) {
	d := l.HeadDim
	w.size(groupTokens, d)
	first, last := float32(0), float32(15)
	if l.Halves[half].Bits == 8 {
		first, last = -127, 127
	}
	for t := lo; t < hi; t++ {
		x, codes := x[t*d:(t+1)*d], w.codes[:d]
		for group := range l.Groups {
			from, to := group*groupWidth, min((group+1)*groupWidth, d)
			low, high := w.extremes(x[from:to])
			scale, zero := l.putRange(page, half, t, group, low, high)
			w.fill(from, to, zero, inverse(scale))
		}
		w.levels(codes, x, first, last, Rounding{})
		l.putToken(page[l.Halves[half].Codes:], half, t, w.codes[:d:roundUp(d, 8)])
	}
}

// putRange stores the scale and the zero of one group's range.
func (l *GroupLayout) putRange(page []byte, half, t, group int, lo, hi float32) (scale, zero float32) {
	h, at := &l.Halves[half], group*groupTokens+t
	reach := max(hi, -lo) / 127
	if h.Bits == 4 {
		zero = roundF16(lo)
		tensor.PutF16(page[h.Zeros:], at, zero)
		reach = (hi - zero) / 15
	}
	scale = roundF16(max(reach, 0))
	tensor.PutF16(page[h.Scales:], at, scale)
	return scale, zero
}

// putToken writes token t's codes, in octets whose padding is 0, for which there is
// capacity.
func (l *GroupLayout) putToken(plane []byte, half, t int, codes []uint8) {
	if l.Halves[half].Bits == 8 {
		at, _ := l.at(half, t, 0)
		if half == HalfV {
			copy(plane[at:], codes)
			return
		}
		for c, code := range codes {
			plane[at+16*c] = code
		}
		return
	}
	d := len(codes)
	codes = codes[:cap(codes)]
	clear(codes[d:])
	octet := func(c int) uint64 {
		if c >= d {
			return 0
		}
		return binary.LittleEndian.Uint64(codes[c:])
	}
	if half == HalfK {
		for c := 0; c < d; c += 8 {
			x := octet(c)
			x = (x | x>>4) & 0x00ff00ff00ff00ff // two nibbles a byte, every other one
			x = (x | x>>8) & 0x0000ffff0000ffff
			at, _ := l.at(half, t, c)
			binary.LittleEndian.PutUint32(plane[at:], uint32(x|x>>16))
		}
		return
	}
	for c := 0; c < d; c += 16 { // a byte of eight words
		x := octet(c) | octet(c+8)<<4
		at, _ := l.at(half, t, c)
		for j := range 8 {
			plane[at+4*j] = byte(x >> (8 * j))
		}
	}
}

// at is the byte that has the code of token t's channel c, and its lowest bit.
func (l *GroupLayout) at(half, t, c int) (i, shift int) {
	run := t / 16 * 16 * l.Width // what is before the 16 tokens, in codes
	wide := l.Halves[half].Bits == 8
	switch {
	case half == HalfK && wide:
		return run + 16*c + t%16, 0
	case half == HalfK:
		return run/2 + c/8*64 + t%16*4 + c%8/2, 4 * (c % 2)
	case wide:
		return t*l.Width + c, 0
	}
	k, j := c%groupWidth/8, c%8
	return t*l.Width/2 + c/groupWidth*32 + 4*j + k/2, 4 * (k % 2)
}

// KeyWordAt is K's word of octet c/8 of token t (4 bits): nibble k is channel 8·(c/8)+k.
func (l *GroupLayout) KeyWordAt(page []byte, t, c int) uint32 {
	at, _ := l.at(HalfK, t, c&^7)
	return binary.LittleEndian.Uint32(page[l.Halves[HalfK].Codes+at:])
}

// Code is the code of token t's channel c.
func (l *GroupLayout) Code(page []byte, half, t, c int) int32 {
	at, shift := l.at(half, t, c)
	b := page[l.Halves[half].Codes+at]
	if l.Halves[half].Bits == 8 {
		return int32(int8(b))
	}
	return int32(b >> shift & 0xf)
}
