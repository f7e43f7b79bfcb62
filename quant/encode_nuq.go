package quant

import (
	"encoding/binary"
	"slices"

	"github.com/terse-llm/terse/tensor"
)

func le32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// putOutlier writes entry i of a list.
func putOutlier(b []byte, i, place int, value float32) {
	binary.LittleEndian.PutUint32(b[4*i:], uint32(place)|uint32(tensor.F32ToF16(value))<<16)
}

// encodeNUQ codes tokens [Lo, Hi) of one head's half for kvquant. Tokens that are
// only ever read exactly get codes 0.
func (g *Geometry) encodeNUQ(a *EncodeArgs, w *Scratch, page, src []byte, head, half int) {
	if g.Tables == nil {
		panic("BUG: coding with kvquant without its codebooks")
	}
	d := g.HeadDim
	w.load(src, d, a.Lo, a.Hi)
	from := min(g.codedFrom(a.First, a.Lo), a.Hi)
	clear(w.codes[a.Lo*d : from*d])
	if half == HalfK {
		g.encodeNUQKeys(a, w, page, head, from)
	} else {
		g.encodeNUQValues(a, w, page, from)
	}
	l := &g.NUQ[half]
	packTokens(half, page[l.Low:], l.Width, w.codes, d, d, a.Lo, a.Hi, 0)
	switch g.Format.Bits {
	case 3:
		for t := a.Lo; t < a.Hi; t++ {
			codes, pairs := w.codes[t*d:(t+1)*d], w.rows[t*d:(t+1)*d]
			for c := range min(d, l.HighWidth) {
				pairs[c] = codes[c] >> 2
				if other := c + l.HighWidth; other < d {
					pairs[c] |= codes[other] >> 2 << 1
				}
			}
		}
		packTokens(half, page[l.High:], l.HighWidth, w.rows, d, min(d, l.HighWidth), a.Lo, a.Hi, 0)
	case 4:
		packTokens(half, page[l.High:], l.HighWidth, w.codes, d, d, a.Lo, a.Hi, 2)
	}
}

// packTokens is pack for any tokens: a word of V has three others too, which stay,
// as their exact form may be on another machine.
func packTokens(half int, plane []byte, width int, codes []uint8, stride, n, lo, hi int, shift uint) {
	if half == HalfK {
		packKeys(plane, width, codes, stride, n, lo, hi, shift)
		return
	}
	for t := lo; t < hi; t++ {
		line := codes[t*stride : t*stride+n]
		for at := range width / 4 {
			var b uint8
			for i := range 4 {
				if c := 32*(at/8) + 8*i + at%8; c < n {
					b |= line[c] >> shift & 3 << (2 * i)
				}
			}
			plane[4*ValueWord(width, t/4, at/8, at%8)+t%4] = b
		}
	}
}

// encodeNUQKeys codes K before RoPE, every channel over its calibrated range.
func (g *Geometry) encodeNUQKeys(a *EncodeArgs, w *Scratch, page []byte, head, from int) {
	t, l, d := g.Tables, &g.NUQ[HalfK], g.HeadDim
	scale, zero := t.Keys(g, a.Layer, head)
	at := (a.Layer*g.KVHeads + head) * d
	low, high := t.fit.Low[at:at+d], t.fit.High[at:at+d]
	var middles [15]float32
	levels := t.middles(&middles, a.Layer, HalfK)
	inv := w.column[:d]
	for c, s := range scale {
		inv[c] = inverse(s)
	}
	cos, sin := w.cos[:t.Pairs()], w.sin[:t.Pairs()]
	t.Base(cos, sin, a.First)
	list := page[l.Exact+4 : l.Exact+4+4*l.Slots]
	n := min(int(le32(page[l.Exact:])), l.Slots)
	for n > 0 && int(le32(list[4*n-4:])&0xffff) >= a.Lo*d { // of tokens that are coded anew
		n--
	}
	for tok := from; tok < a.Hi; tok++ {
		x, codes := w.x[tok*d:(tok+1)*d], w.codes[tok*d:(tok+1)*d]
		t.Turn(x, t.Cos[tok*len(cos):(tok+1)*len(cos)], t.Sin[tok*len(cos):(tok+1)*len(cos)], true)
		t.Turn(x, cos, sin, true)
		for c, v := range x {
			codes[c] = nearest(float32((v-zero[c])*inv[c]), middles[:levels])
			if (v < low[c] || v > high[c]) && n < l.Slots {
				putOutlier(list, n, tok*d+c, saturate(v))
				n++
			}
		}
	}
	binary.LittleEndian.PutUint32(page[l.Exact:], uint32(n))
	clear(list[4*n:])
}

// encodeNUQValues codes V, every token over the range that its outliers leave.
func (g *Geometry) encodeNUQValues(a *EncodeArgs, w *Scratch, page []byte, from int) {
	l, d := &g.NUQ[HalfV], g.HeadDim
	var middles [15]float32
	levels := g.Tables.middles(&middles, a.Layer, HalfV)
	for tok := from; tok < a.Hi; tok++ {
		x, codes := w.x[tok*d:(tok+1)*d], w.codes[tok*d:(tok+1)*d]
		var lo, hi float32
		lo, hi, w.far = RangeWithout(w.far[:0], x, l.Slots)
		zero, scale := roundF16(hi/2+lo/2), roundF16(hi/2-lo/2)
		tensor.PutF16(page[l.Zero:], tok, zero)
		tensor.PutF16(page[l.Scale:], tok, scale)
		inv := inverse(scale)
		for c, v := range x {
			codes[c] = nearest(float32((v-zero)*inv), middles[:levels])
		}
		for i, c := range w.far {
			putOutlier(page[l.Exact+4*l.Slots*tok:], i, tok*d+c, x[c])
		}
	}
}

// RangeWithout is the range of x without the n values, fewer than all, that lie
// farthest from its mean (of equals the first), which it appends to far.
func RangeWithout(far []int, x []float32, n int) (lo, hi float32, _ []int) {
	sum := float32(0)
	for _, v := range x {
		sum += v
	}
	mean := sum / float32(len(x))
	for range n {
		best, most := 0, float32(-1)
		for c, v := range x {
			if d := max(v-mean, mean-v); d > most && !slices.Contains(far, c) {
				best, most = c, d
			}
		}
		far = append(far, best)
	}
	lo, hi = maxF16, -maxF16
	for c, v := range x {
		if !slices.Contains(far, c) {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	return lo, hi, far
}

// nearest is the code of the level nearest to y, given where they meet.
func nearest(y float32, middles []float32) uint8 {
	code := uint8(0)
	for _, m := range middles {
		if y > m {
			code++
		}
	}
	return code
}
