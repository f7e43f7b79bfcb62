package quant

import (
	"errors"
	"fmt"
	"math"

	"github.com/terse-llm/terse/tensor"
)

// NUQ is what kvquant knows of a model beforehand (arXiv 2401.18079): the range of
// every channel of K before RoPE, and the levels of its non-uniform codes. K is
// turned back by the model's own angles, which it therefore has too.
type NUQ struct {
	Interleaved bool      // pairs of channels (2i, 2i+1); otherwise (i, i+pairs)
	Inverse     []float32 // [pairs], radians per position
	// Low and High bound what is coded of a channel; what lies beyond is kept exactly
	// as far as there is room: [Layers][KVHeads][HeadDim].
	Low, High []float32
	// Books are the levels that values, scaled to [-1, 1], are given to, the nearest,
	// ascending; Levels what their codes stand for (Q-Norm moves them): [Layers][K, V]
	// and then 4 levels of 2 bits, 8 of 3, 16 of 4.
	Books, Levels []float32
}

// bookSize is the levels of all widths, of one layer and half.
const bookSize = 4 + 8 + 16

// NUQBook gives the part of NUQ.Books or NUQ.Levels that is of one layer and half, in
// codes of the given number of bits.
func NUQBook(books []float32, layer, half, bits int) []float32 {
	at := (2*layer+half)*bookSize + 1<<bits - 4
	return books[at : at+1<<bits : at+1<<bits]
}

// NewNUQ makes room for a model's.
func NewNUQ(layers, kvHeads, headDim, pairs int) *NUQ {
	n, books := layers*kvHeads*headDim, 2*layers*bookSize
	return &NUQ{Inverse: make([]float32, pairs), Low: make([]float32, n), High: make([]float32, n),
		Books: make([]float32, books), Levels: make([]float32, books)}
}

// The range of levels: values are within [-1, 1], and Q-Norm moves levels apart
// until their deviation is that of the values.
const maxLevel = 16

// nuqSection is kvquant's part of a calibration file: the number of pairs and
// whether they are interleaved, as float32, and then the arrays in order.
func nuqSection() section {
	return section{name: "kvquant",
		get: func(c *Calibration) []byte {
			if c.NUQ == nil {
				return nil
			}
			interleaved := float32(0)
			if c.NUQ.Interleaved {
				interleaved = 1
			}
			b := floatBytes([]float32{float32(len(c.NUQ.Inverse)), interleaved})
			for _, x := range c.NUQ.arrays() {
				b = append(b, floatBytes(*x)...)
			}
			return b
		},
		put: func(c *Calibration, body []byte) error {
			if len(body) < 8 {
				return errors.New("it is cut short")
			}
			head := floats(body[:8])
			pairs := int(min(max(head[0], 0), maxHeadDim)) // NaN too becomes something
			if float32(pairs) != head[0] || head[1] != 0 && head[1] != 1 {
				return fmt.Errorf("it is of %g pairs of channels, interleaved %g", head[0], head[1])
			}
			c.NUQ = NewNUQ(0, 0, 0, 0)
			n, books := c.Layers*c.KVHeads*c.HeadDim, 2*c.Layers*bookSize
			counts := []int{pairs, n, n, books, books}
			if want := 8 + 4*(pairs+2*n+2*books); len(body) != want {
				return fmt.Errorf("its shape [%d,%d,%d], %d pairs, wants %d bytes, found %d", c.Layers, c.KVHeads, c.HeadDim, pairs, want, len(body))
			}
			c.NUQ.Interleaved, body = head[1] == 1, body[8:]
			for i, x := range c.NUQ.arrays() {
				*x, body = floats(body[:4*counts[i]]), body[4*counts[i]:]
			}
			return nil
		},
		check: func(c *Calibration) error { return c.NUQ.check(c.Layers, c.KVHeads, c.HeadDim) }}
}

func (q *NUQ) arrays() []*[]float32 {
	return []*[]float32{&q.Inverse, &q.Low, &q.High, &q.Books, &q.Levels}
}

// check refuses what does not fit the shape or would make codes of no meaning.
func (q *NUQ) check(layers, kvHeads, headDim int) error {
	want := NewNUQ(layers, kvHeads, headDim, len(q.Inverse)).arrays()
	for i, x := range q.arrays() {
		if len(*x) != len(*want[i]) {
			return fmt.Errorf("array %d has %d numbers, want %d", i, len(*x), len(*want[i]))
		}
	}
	if n := len(q.Inverse); n < 1 || 2*n > headDim {
		return fmt.Errorf("%d pairs of channels in heads of %d", n, headDim)
	}
	limits := []float32{8, maxF16, maxF16, maxLevel, maxLevel}
	for i, x := range q.arrays() {
		if err := checkFloats(*x, -limits[i], limits[i]); err != nil {
			return fmt.Errorf("array %d: %w", i, err)
		}
	}
	for i, lo := range q.Low {
		if lo > q.High[i] {
			return fmt.Errorf("channel %d goes from %g to %g", i, lo, q.High[i])
		}
	}
	for layer := range layers {
		for half := range 2 {
			for bits := 2; bits <= 4; bits++ {
				book := NUQBook(q.Books, layer, half, bits)
				for i := range book[1:] {
					if !(book[i] <= book[i+1]) {
						return fmt.Errorf("levels of layer %d, %d bits, do not ascend: %g, %g", layer, bits, book[i], book[i+1])
					}
				}
			}
		}
	}
	return nil
}

// NUQTables is a model's NUQ as coding and reading of one width use it.
type NUQTables struct {
	fit         *NUQ
	bits        int
	scale, zero []float32 // of K: [Layers][KVHeads][HeadDim]
	// Cos and Sin turn a page's tokens from where the page begins: [token][pairs].
	Cos, Sin []float32
	// The same of positions that are whole pages, up to basePages, and of those that
	// are so many pages: [basePages][pairs].
	pages, runs [2][]float32
}

// basePages is how many pages' angles are at hand, and how many runs of so many pages:
// 262,144 tokens.
const basePages = 64

// newNUQTables makes g's tables.
func (g *Geometry) newNUQTables(fit *NUQ) (*NUQTables, error) {
	if fit == nil {
		return nil, errors.New("it wants codebooks, and there is no calibration that has them: run terse calibrate on this model")
	}
	t := &NUQTables{fit: fit, bits: g.Format.Bits, scale: make([]float32, len(fit.Low)), zero: make([]float32, len(fit.Low))}
	for i, lo := range fit.Low {
		t.scale[i], t.zero[i] = fit.High[i]/2-lo/2, fit.High[i]/2+lo/2
	}
	page := g.Format.PageTokens
	t.Cos, t.Sin = fit.angles(page, 1)
	t.pages[0], t.pages[1] = fit.angles(basePages, page)
	t.runs[0], t.runs[1] = fit.angles(basePages, basePages*page)
	return t, nil
}

// Fit is what the tables were made of.
func (t *NUQTables) Fit() *NUQ { return t.fit }

// Pairs is the number of pairs of channels that RoPE turns.
func (t *NUQTables) Pairs() int { return len(t.fit.Inverse) }

// Interleaved is whether they are (2i, 2i+1), and not (i, i+Pairs).
func (t *NUQTables) Interleaved() bool { return t.fit.Interleaved }

// Keys gives scale and zero of the channels of K of a layer's KV head: a value is
// level·scale + zero.
func (t *NUQTables) Keys(g *Geometry, layer, head int) (scale, zero []float32) {
	at := (layer*g.KVHeads + head) * g.HeadDim
	return t.scale[at : at+g.HeadDim : at+g.HeadDim], t.zero[at : at+g.HeadDim : at+g.HeadDim]
}

// Levels are what the codes of a layer's half stand for.
func (t *NUQTables) Levels(layer, half int) []float32 {
	return NUQBook(t.fit.Levels, layer, half, t.bits)
}

// angles are the cosines and sines of positions 0, step, 2·step, …, n of them.
func (q *NUQ) angles(n, step int) (cos, sin []float32) {
	for i := range n {
		for _, f := range q.Inverse {
			s, c := math.Sincos(float64(i*step) * float64(f))
			cos, sin = append(cos, float32(c)), append(sin, float32(s))
		}
	}
	return cos, sin
}

// Base sets cosines and sines, Pairs of each, of the position where a page begins:
// those of the run of pages that it is in, turned by those of the page in the run.
func (t *NUQTables) Base(cos, sin []float32, position int) {
	n := t.Pairs()
	page := position * n / len(t.Cos) // a page has len(Cos)/n tokens
	run := page / basePages
	page %= basePages
	if run >= basePages { // no model goes so far
		for i, f := range t.fit.Inverse {
			s, c := math.Sincos(float64(position) * float64(f))
			cos[i], sin[i] = float32(c), float32(s)
		}
		return
	}
	pageCos, pageSin := t.pages[0][page*n:(page+1)*n], t.pages[1][page*n:(page+1)*n]
	runCos, runSin := t.runs[0][run*n:(run+1)*n], t.runs[1][run*n:(run+1)*n]
	for i, c := range pageCos {
		s := pageSin[i]
		cos[i] = float32(c*runCos[i]) - float32(s*runSin[i])
		sin[i] = float32(s*runCos[i]) + float32(c*runSin[i])
	}
}

// Turn rotates the pairs of channels of a row by their angles, or back.
func (t *NUQTables) Turn(row, cos, sin []float32, back bool) {
	TurnPairs(row, cos, sin, t.fit.Interleaved, back)
}

// TurnPairs rotates pairs of channels of a row by angles, or back, rounding each step
// to float32.
func TurnPairs(row, cos, sin []float32, interleaved, back bool) {
	for i, c := range cos {
		a, b := i, i+len(cos)
		if interleaved {
			a, b = 2*i, 2*i+1
		}
		s := sin[i]
		if back {
			s = -s
		}
		x, y := row[a], row[b]
		row[a] = float32(x*c) - float32(y*s)
		row[b] = float32(y*c) + float32(x*s)
	}
}

// middles sets dst to the values at which the nearest level changes, and gives
// their number.
func (t *NUQTables) middles(dst *[15]float32, layer, half int) int {
	book := NUQBook(t.fit.Books, layer, half, t.bits)
	for i := range book[1:] {
		dst[i] = book[i]/2 + book[i+1]/2
	}
	return len(book) - 1
}

// Outlier is a value that is kept exactly: of channel Place%HeadDim of token
// Place/HeadDim of the page.
type Outlier struct {
	Place int
	Value float32
}

// NUQHalf says where K or V of one KV head lies in a coded page of kvquant: byte
// offsets from the start of the head. Low and High are planes of 2-bit codes, as
// in the hq formats. 4 bits: code = low + 4·high. 3 bits: the high plane is half as
// wide, and its code at c is the third bit of channel c plus twice that of channel
// HighWidth + c.
type NUQHalf struct {
	Low, Width      int
	High, HighWidth int // High is -1 with 2 bits
	// V only (-1 in K): [token] float16, the middle of the token's range and half of
	// its width.
	Scale, Zero int
	// Exact are outliers, u32: the place in the lower 16 bits, a float16 above. In K
	// (Slots of them, by place) their number comes first, as u32; in V every token has
	// Slots of its own.
	Exact, Slots int
}

// outlierShare is one value in so many.
const outlierShare = 100

// NUQOutliers is how many of d values of a token of V are kept exactly: one in a
// hundred, and one at least.
func NUQOutliers(d int) int { return max(1, (d+outlierShare/2)/outlierShare) }

func (g *Geometry) layNUQ() {
	var c cursor
	f, d := g.Format, g.HeadDim
	for half := range 2 {
		l := NUQHalf{Width: roundUp(d, wordWidth(half)), High: -1, Scale: -1, Zero: -1}
		if half == HalfV {
			l.Scale, l.Zero = c.take(2*f.PageTokens), c.take(2*f.PageTokens)
			l.Slots = NUQOutliers(d)
			l.Exact = c.take(4 * l.Slots * f.PageTokens)
		} else {
			l.Slots = roundUp((d*f.PageTokens+outlierShare-1)/outlierShare, 8)
			l.Exact = c.take(4 + 4*l.Slots)
		}
		l.Low = c.take(planeBytes(f.PageTokens, l.Width))
		switch f.Bits {
		case 3:
			l.HighWidth = roundUp((d+1)/2, wordWidth(half))
		case 4:
			l.HighWidth = l.Width
		}
		if f.Bits > 2 {
			l.High = c.take(planeBytes(f.PageTokens, l.HighWidth))
		}
		g.NUQ[half] = l
	}
	g.HeadBytes = int(c)
}

// Outliers appends those of a half's tokens [lo, hi) to dst. Places of a page from
// another machine that are none are left out.
func (g *Geometry) Outliers(dst []Outlier, page []byte, half, lo, hi int) []Outlier {
	l, d := &g.NUQ[half], g.HeadDim
	if half == HalfK {
		list := page[l.Exact+4:]
		for i := range min(int(le32(page[l.Exact:])), l.Slots) {
			dst = appendOutlier(dst, le32(list[4*i:]), lo*d, hi*d)
		}
		return dst
	}
	for t := lo; t < hi; t++ {
		for i := range l.Slots {
			dst = appendOutlier(dst, le32(page[l.Exact+4*(t*l.Slots+i):]), t*d, t*d+d)
		}
	}
	return dst
}

func appendOutlier(dst []Outlier, word uint32, lo, hi int) []Outlier {
	if place := int(word & 0xffff); place >= lo && place < hi {
		dst = append(dst, Outlier{place, tensor.F16ToF32(uint16(word >> 16))})
	}
	return dst
}
