package quant

import (
	"math"

	"github.com/terse-llm/terse/tensor"
)

// fineLayers is how many leading layers of K and of V CacheGen codes in 32 bins, as
// its authors' code does for models of 32 layers: a third of K's, two of V's. The
// others have 16.
func fineLayers(layers int) (k, v int) { return layers / 3, min(2, layers) }

// cacheGenBits is the bits that codes of a layer take in a page: bytes for 32 bins,
// nibbles for 16.
func (f Format) cacheGenBits(layer, layers int) (k, v int) {
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

// MaxLevel is the largest level of one half of a layer of cachegen, the least being
// its negative: 32 bins are 31 levels, 16 are 15.
func (h *GroupHalf) MaxLevel() int {
	if h.Bits == 8 {
		return 15
	}
	return 7
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

// encodeCacheGen codes tokens [a.Lo, a.Hi): every token of K and of V on one scale
// for all heads, to nearest, symmetric about zero.
func (g *Geometry) encodeCacheGen(a *EncodeArgs, w *Scratch) {
	for half := range 2 {
		h := &g.Group.Halves[half]
		levels := h.MaxLevel()
		clear(w.column)
		g.eachHead(a, w, half, func(_ int, t int, x []float32) {
			for _, v := range x {
				w.column[t] = max(w.column[t], v, -v)
			}
		})
		for t := a.Lo; t < a.Hi; t++ {
			w.column[t] = cacheGenScale(w.column[t], levels)
		}
		g.eachHead(a, w, half, func(head int, t int, x []float32) {
			g.Group.encodeLevels(g.CodedHead(a.Coded, head), half, t, x, w.column[t])
		})
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
func (l *GroupLayout) encodeLevels(page []byte, half, t int, x []float32, scale float32) {
	h := &l.Halves[half]
	levels := float32(h.MaxLevel())
	zero, first := float32(0), -levels
	l.putScale(page, half, t, scale)
	if h.Bits == 4 {
		zero, first = -levels*scale, 0
	}
	l.codes(page, half, t, 0, x, scale, zero, first, first+2*levels)
}

// putScale writes a token's scale, and in a half of nibbles its zero, for all groups.
func (l *GroupLayout) putScale(page []byte, half, t int, scale float32) {
	h := &l.Halves[half]
	for g := range l.Groups {
		at := g*groupTokens + t
		tensor.PutF16(page[h.Scales:], at, scale)
		if h.Bits == 4 {
			tensor.PutF16(page[h.Zeros:], at, -float32(h.MaxLevel())*scale)
		}
	}
}
