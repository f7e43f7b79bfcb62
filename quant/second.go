package quant

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/terse-llm/terse/tensor"
)

// GiveSecond gives the tokens of set, at most LowRows of them, the second plane in
// the halves of one head of a coded page that keep it of important tokens. Both
// are one layer of the page, which has been coded from exact; whatever set it had
// is replaced, and nothing else of the page changes.
func (g *Geometry) GiveSecond(coded, exact []byte, head int, set uint64, w *Scratch) {
	page := g.CodedHead(coded, head)
	for half := range g.HQ {
		if !g.HQ[half].Refined {
			continue
		}
		src := g.ExactK(exact, head)
		if half == HalfV {
			src = g.ExactV(exact, head)
		}
		g.Refine(w, page, src, half, set)
	}
}

// Refine writes the set and the second plane of its tokens in one half of a head's
// page, whose 2-bit codes of src are there: of the four levels that a code's step is
// cut into, the one nearest to the value.
func (g *Geometry) Refine(w *Scratch, page, src []byte, half int, set uint64) {
	w.fit(g)
	l, d := &g.HQ[half], g.HeadDim
	if n := bits.OnesCount64(set); n > l.LowRows {
		panic(fmt.Sprintf("BUG: %d important tokens in a page of format %s", n, g.Format.Name))
	}
	seg := &l.Segments[0]
	clear(w.rows[:l.LowRows*d])
	row := 0
	for rest := set; rest != 0; rest &= rest - 1 {
		t := bits.TrailingZeros64(rest)
		scale := tensor.GetF16(page[seg.Scale:], t) / 4
		zero := -float32(code4.Half * scale)
		if seg.Zero >= 0 {
			zero = tensor.GetF16(page[seg.Zero:], t) - float32(code2.Half*scale)
		}
		w.load(src, d, t, t+1)
		x, low := w.x[t*d:(t+1)*d], w.rows[row*d:(row+1)*d]
		code4.code(low, x, scale, zero)
		for c, code := range low {
			top := 4 * topCode(half, page[seg.Top:], seg.Width, t, c)
			low[c] = min(max(code, top), top+3) - top
		}
		row++
	}
	pack(half, page[seg.Low:], seg.Width, w.rows, d, d, 0, l.LowRows, 0)
	binary.LittleEndian.PutUint64(page[l.Mask:], set)
}

// topCode is the code of one channel of a token in a plane.
func topCode(half int, plane []byte, width, t, c int) uint8 {
	if half == HalfK {
		return plane[4*KeyWord(width, t, c/16)+c%4] >> (c % 16 / 4 * 2) & 3
	}
	return plane[4*ValueWord(width, t/4, c/32, c%8)+t%4] >> (c % 32 / 8 * 2) & 3
}

// HasSecond reports whether any values of the format have a second plane, so that
// it can come apart from the first.
func (g *Geometry) HasSecond() bool { return g.HQ[HalfK].LowRows > 0 || g.HQ[HalfV].LowRows > 0 }

// TopSpans are the bytes of one layer of a coded page without its second planes
// and without the sets that say which tokens have one.
func (g *Geometry) TopSpans() []Span {
	var out []Span
	add := func(lo, hi int) {
		if n := len(out); n > 0 && out[n-1].Off+out[n-1].Len == lo {
			out[n-1].Len += hi - lo
		} else if lo < hi {
			out = append(out, Span{lo, hi - lo})
		}
	}
	for head := range g.KVHeads {
		at := head * g.HeadBytes
		for half := range g.HQ {
			l := &g.HQ[half]
			if l.Mask >= 0 {
				add(at, head*g.HeadBytes+l.Mask)
				at = head*g.HeadBytes + l.Mask + planeAlign
			}
			if l.LowRows > 0 {
				seg := &l.Segments[0]
				add(at, head*g.HeadBytes+seg.Low)
				at = head*g.HeadBytes + roundUp(seg.Low+planeBytes(l.LowRows, seg.Width), planeAlign)
			}
		}
		add(at, (head+1)*g.HeadBytes)
	}
	return out
}

// SecondMost is the most bytes that SecondSpans come to.
func (g *Geometry) SecondMost() int {
	n := 0
	for half := range g.HQ {
		l := &g.HQ[half]
		n += planeBytes(l.LowRows, l.Segments[0].Width)
		if l.Mask >= 0 && l.LowRows > 0 {
			n += maskBytes
		}
	}
	return n * g.KVHeads
}

// SecondTypical is what SecondSpans come to where a page has its even share of the
// important tokens.
func (g *Geometry) SecondTypical() int {
	n := 0
	for half := range g.HQ {
		l := &g.HQ[half]
		rows := l.LowRows
		if l.Refined {
			rows = min(rows, roundUp((g.Format.PageTokens*g.Format.Important+99)/100, 8))
		}
		n += planeBytes(rows, l.Segments[0].Width)
		if l.Mask >= 0 && l.LowRows > 0 {
			n += maskBytes
		}
	}
	return n * g.KVHeads
}

// maskBytes is the size of a set of tokens.
const maskBytes = 8

// SecondSpans are the bytes that give one layer of a coded page its second planes:
// of every head, K and then V, the set of tokens where there is one, and the rows
// of the second plane: all, or those of the set's tokens in whole groups of 8.
func (g *Geometry) SecondSpans(page []byte) []Span {
	var out []Span
	for head := range g.KVHeads {
		for half := range g.HQ {
			l := &g.HQ[half]
			if l.LowRows == 0 {
				continue
			}
			at, rows := head*g.HeadBytes, l.LowRows
			if l.Mask >= 0 {
				out = append(out, Span{at + l.Mask, maskBytes})
				rows = l.rowsOf(binary.LittleEndian.Uint64(page[at+l.Mask:]))
			}
			if rows > 0 {
				out = append(out, Span{at + l.Segments[0].Low, planeBytes(rows, l.Segments[0].Width)})
			}
		}
	}
	return out
}

// rowsOf is the rows of the second plane that a set's tokens take, in whole groups.
func (l *HQHalf) rowsOf(set uint64) int { return min(roundUp(bits.OnesCount64(set), 8), l.LowRows) }

// SecondLen is the length of what SecondSpans gave at the head of data, which may
// come from anywhere.
func (g *Geometry) SecondLen(data []byte) (int, error) {
	n := 0
	for range g.KVHeads {
		for half := range g.HQ {
			l := &g.HQ[half]
			if l.LowRows == 0 {
				continue
			}
			rows := l.LowRows
			if l.Mask >= 0 {
				if len(data) < n+maskBytes {
					return 0, fmt.Errorf("second planes of %d bytes end in a set", len(data))
				}
				set := binary.LittleEndian.Uint64(data[n:])
				if bits.OnesCount64(set) > l.LowRows {
					return 0, fmt.Errorf("a set of %d tokens where %d may have the second plane", bits.OnesCount64(set), l.LowRows)
				}
				rows = l.rowsOf(set)
				n += maskBytes
			}
			n += planeBytes(rows, l.Segments[0].Width)
		}
	}
	if len(data) < n {
		return 0, fmt.Errorf("second planes of %d bytes where %d were due", len(data), n)
	}
	return n, nil
}

// PutSecond writes what SecondSpans gave into one layer of a page. data must have
// passed SecondLen.
func (g *Geometry) PutSecond(page, data []byte) {
	for head := range g.KVHeads {
		for half := range g.HQ {
			l := &g.HQ[half]
			if l.LowRows == 0 {
				continue
			}
			at, rows := g.CodedHead(page, head), l.LowRows
			if l.Mask >= 0 {
				rows = l.rowsOf(binary.LittleEndian.Uint64(data))
				data = data[copy(at[l.Mask:l.Mask+maskBytes], data):]
			}
			low := at[l.Segments[0].Low:][:planeBytes(rows, l.Segments[0].Width)]
			data = data[copy(low, data):]
		}
	}
}
