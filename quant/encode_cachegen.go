package quant

import (
	"encoding/binary"
	"math"

	"github.com/terse-llm/terse/tensor"
)

// fineLayers is how many leading layers of K and of V CacheGen codes in 32 bins, as
// its authors' code does for models of 32 layers: a third of K's, two of V's. The
// others have 16.
func fineLayers(layers int) (k, v int) { return layers / 3, min(2, layers) }

// cacheGenBits is the bits that codes of a layer take in a page: bytes for 32 bins,
// nibbles for 16.
func cacheGenBits(layer, layers int) (k, v int) {
	k, v = 4, 4
	fineK, fineV := fineLayers(layers)
	if layer < fineK {
		k = 8
	}
	if layer < fineV {
		v = 8
	}
	return k, v
}

// levelsOf is the number of levels that cachegen keeps in codes of so many bits.
func levelsOf(bits int) int {
	if bits == 8 {
		return 31
	}
	return 15
}

// maxCacheGenScale keeps 7·scale, the distance of a nibble's zero, in float16.
const maxCacheGenScale = 9344

// cacheGenScale is the step of a token whose largest value is most: float32 with the
// 8 significant bits of bfloat16, so that seven of it are a float16 exactly.
func cacheGenScale(most float32, levels int) float32 {
	step := most / float32(levels)
	bits := math.Float32bits(step)
	bits += 0x7fff + bits>>16&1 // to nearest, ties to even
	return roundF16(min(math.Float32frombits(bits&^0xffff), maxCacheGenScale))
}

// anchorLevel is the largest level of anchors: 8 bits.
const anchorLevel = 127

// anchor is the token that token t is coded as the difference from, t itself if none.
func (l *GroupLayout) anchor(t int) int {
	if l.Delta == 0 {
		return t
	}
	return t - t%l.Delta
}

// most is the largest level of a token.
func (l *GroupLayout) most(half, t int) int {
	if l.Delta > 0 && t%l.Delta == 0 {
		return anchorLevel
	}
	return l.Halves[half].Most
}

// encodeCacheGen codes tokens [a.Lo, a.Hi): every token of K and of V on one scale
// for all heads, to nearest, symmetric about zero; with deltas anchors first, as the
// others are coded as their differences from what the anchors stand for.
func (g *Geometry) encodeCacheGen(a *EncodeArgs, w *Scratch) {
	l := &g.Group
	for half := range 2 {
		for _, anchors := range []bool{true, false} {
			if l.Delta == 0 && anchors {
				continue
			}
			clear(w.column)
			each := func(f func(head, t int, x []float32)) {
				g.eachHead(a, w, half, func(head, t int, x []float32) {
					if l.Delta > 0 && (l.anchor(t) == t) != anchors {
						return
					}
					l.subtract(x, g.CodedHead(a.Coded, head), half, t)
					f(head, t, x)
				})
			}
			each(func(_, t int, x []float32) {
				lo, hi := w.extremes(x)
				w.column[t] = max(w.column[t], hi, -lo)
			})
			for t := a.Lo; t < a.Hi; t++ {
				w.column[t] = cacheGenScale(w.column[t], l.most(half, t))
			}
			each(func(head, t int, x []float32) {
				l.encodeLevels(w, g.CodedHead(a.Coded, head), half, t, x, w.column[t])
			})
		}
	}
}

// subtract takes what a token's anchor stands for from its values.
func (l *GroupLayout) subtract(x []float32, page []byte, half, t int) {
	at := l.anchor(t)
	if at == t {
		return
	}
	scale := tensor.GetF16(page[l.Halves[half].Scales:], at)
	for c := range x {
		x[c] -= float32(scale * float32(l.Code(page, half, at, c)))
	}
}

// eachHead hands out the rows of tokens [a.Lo, a.Hi), head by head.
func (g *Geometry) eachHead(a *EncodeArgs, w *Scratch, half int, f func(head, t int, x []float32)) {
	d := g.HeadDim
	for head := range g.KVHeads {
		src := g.ExactK(a.Exact, head)
		if half == HalfV {
			src = g.ExactV(a.Exact, head)
		}
		w.load(src, d, a.Lo, a.Hi)
		for t := a.Lo; t < a.Hi; t++ {
			f(head, t, w.x[t*d:(t+1)*d])
		}
	}
}

// encodeLevels codes one head's row of a token with the given scale.
func (l *GroupLayout) encodeLevels(w *Scratch, page []byte, half, t int, x []float32, scale float32) {
	h := &l.Halves[half]
	levels := float32(l.most(half, t))
	zero, first := float32(0), -levels
	l.putScale(page, half, t, scale)
	if h.Bits == 4 {
		zero, first = -levels*scale, 0
	}
	d := len(x)
	w.fill(0, d, zero, inverse(scale))
	w.levels(w.codes, x, first, first+2*levels, Rounding{})
	l.putToken(page[h.Codes:], half, t, w.codes[:d:roundUp(d, 8)])
}

// putScale writes a token's scale, and in a half of nibbles its zero, for all groups.
func (l *GroupLayout) putScale(page []byte, half, t int, scale float32) {
	h := &l.Halves[half]
	for g := range l.Groups {
		at := g*groupTokens + t
		tensor.PutF16(page[h.Scales:], at, scale)
		if h.Bits == 4 {
			tensor.PutF16(page[h.Zeros:], at, -float32(h.Most)*scale)
		}
	}
}

// takeLevels reads the first tokens' levels of one head's half as symbols, 0 being the
// least: dst is [Width channels][64 tokens].
func (l *GroupLayout) takeLevels(dst []uint8, page []byte, half, tokens int) {
	h := &l.Halves[half]
	codes := page[h.Codes:]
	for t := range tokens {
		at, step := l.row(half, t)
		most := uint8(l.most(half, t))
		if h.Bits == 8 {
			for c := range l.HeadDim {
				dst[c*groupTokens+t] = codes[at+c*step] + most
			}
			continue
		}
		for i := range l.Width / 8 {
			word := binary.LittleEndian.Uint32(codes[at+i*step:])
			c, between := wordChannels(half, i)
			for range 8 {
				dst[c*groupTokens+t] = uint8(word & 0xf)
				word >>= 4
				c += between
			}
		}
	}
}

// putLevels writes what takeLevels read; the page has zeros there.
func (l *GroupLayout) putLevels(page []byte, half int, src []uint8, tokens int) {
	h := &l.Halves[half]
	codes := page[h.Codes:]
	for t := range tokens {
		at, step := l.row(half, t)
		most := uint8(l.most(half, t))
		if h.Bits == 8 {
			for c := range l.HeadDim {
				codes[at+c*step] = src[c*groupTokens+t] - most
			}
			continue
		}
		for i := range l.Width / 8 {
			c, between := wordChannels(half, i)
			var word uint32
			for k := 0; k < 8 && c < l.HeadDim; k++ {
				word |= uint32(src[c*groupTokens+t]) << (4 * k)
				c += between
			}
			binary.LittleEndian.PutUint32(codes[at+i*step:], word)
		}
	}
}

// row is where token t's codes begin, and how far apart its channels (8 bits) or words
// (4 bits) are.
func (l *GroupLayout) row(half, t int) (at, step int) {
	at, _ = l.at(half, t, 0)
	switch wide := l.Halves[half].Bits == 8; {
	case half == HalfK && wide:
		return at, 16
	case half == HalfK:
		return at, 64
	case wide:
		return at, 1
	}
	return at, 4
}

// wordChannels is the channel of the lowest nibble of a token's i-th word, and what is
// between it and the next one's.
func wordChannels(half, i int) (c, between int) {
	if half == HalfK {
		return 8 * i, 1
	}
	return i/8*groupWidth + i%8, 8
}
