package entropy

import (
	"encoding/binary"
	"errors"
	"slices"
)

const (
	states = 4
	// A state lies in [least, 2^32) between symbols.
	least = 1 << 16
	// head is the size of the states, with which coded symbols begin.
	head = 4 * states
)

// Bound is the most bytes that n symbols may take.
func Bound(n int) int { return head + 2*n }

// Encoder codes runs of symbols. A decoder gets them in the reverse order: the last
// run first, each from its beginning. The zero value is ready.
type Encoder struct {
	x     [states]uint32
	words []uint16 // last one first
}

// Reset begins anew, in the memory of what was coded before.
func (e *Encoder) Reset() {
	for i := range e.x {
		e.x[i] = least
	}
	e.words = e.words[:0]
}

// Run codes symbols of one distribution, before those coded so far.
func (e *Encoder) Run(symbols []uint8, t *Table) {
	for i := len(symbols) - 1; i >= 0; i-- {
		s := int(symbols[i])
		from := uint32(t.start[s])
		f := uint32(t.start[s+1]) - from
		x := e.x[i%states]
		if x>>(32-totalBits) >= f {
			e.words = append(e.words, uint16(x))
			x >>= 16
		}
		q := x / f
		e.x[i%states] = q<<totalBits + (x - q*f) + from
	}
}

// Append appends what was coded since Reset.
func (e *Encoder) Append(dst []byte) []byte {
	for _, x := range e.x {
		dst = binary.LittleEndian.AppendUint32(dst, x)
	}
	dst = slices.Grow(dst, 2*len(e.words))
	for i := len(e.words) - 1; i >= 0; i-- {
		dst = binary.LittleEndian.AppendUint16(dst, e.words[i])
	}
	return dst
}

// Len is the bytes that Append appends.
func (e *Encoder) Len() int { return head + 2*len(e.words) }

// Decoder decodes what an Encoder coded. Whatever bytes it is given, it reads no
// others, and symbols are of their table.
type Decoder struct {
	x  [states]uint32
	in []byte
}

var (
	errShort  = errors.New("range-coded symbols without their states")
	errBroken = errors.New("range-coded symbols do not end where they should: they were coded with other distributions, or damaged")
)

// NewDecoder begins to decode data.
func NewDecoder(data []byte) (Decoder, error) {
	if len(data) < head {
		return Decoder{}, errShort
	}
	d := Decoder{in: data[head:]}
	for i := range d.x {
		d.x[i] = binary.LittleEndian.Uint32(data[4*i:])
	}
	return d, nil
}

// Run decodes len(dst) symbols of a distribution.
func (d *Decoder) Run(dst []uint8, t *Table) {
	x0, x1, x2, x3, in := d.x[0], d.x[1], d.x[2], d.x[3], d.in
	for len(dst) >= states && len(in) >= 2*states { // no symbol takes more than a word
		s0, s1, s2, s3 := t.symbol(x0%Total), t.symbol(x1%Total), t.symbol(x2%Total), t.symbol(x3%Total)
		x0, x1, x2, x3 = t.step(x0, s0), t.step(x1, s1), t.step(x2, s2), t.step(x3, s3)
		dst[0], dst[1], dst[2], dst[3] = uint8(s0), uint8(s1), uint8(s2), uint8(s3)
		x0, in = refill(x0, in)
		x1, in = refill(x1, in)
		x2, in = refill(x2, in)
		x3, in = refill(x3, in)
		dst = dst[states:]
	}
	d.x, d.in = [states]uint32{x0, x1, x2, x3}, in
	for i := range dst {
		x := d.x[i%states]
		s := t.symbol(x % Total)
		dst[i] = uint8(s)
		if x = t.step(x, s); x < least && len(d.in) < 2 {
			d.in = nil // Close will say so: this state never becomes least again
			x = 0
		}
		d.x[i%states], d.in = refill(x, d.in)
	}
}

// step takes symbol s out of a state.
func (t *Table) step(x uint32, s int) uint32 {
	from := uint32(t.start[s])
	return (uint32(t.start[s+1])-from)*(x>>totalBits) + x%Total - from
}

// refill takes a word into a state that has room for it, where there is one.
func refill(x uint32, in []byte) (uint32, []byte) {
	if x < least && len(in) >= 2 {
		return x<<16 | uint32(binary.LittleEndian.Uint16(in)), in[2:]
	}
	return x, in
}

// Close reports whether all was decoded and nothing else was there.
func (d *Decoder) Close() error {
	if d.x != [states]uint32{least, least, least, least} || len(d.in) > 0 {
		return errBroken
	}
	return nil
}
