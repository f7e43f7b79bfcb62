package quant

import (
	"encoding/binary"
	"math"

	"github.com/terse-llm/terse/tensor"
)

// EncodeArgs says what to code of one layer of one page.
type EncodeArgs struct {
	Exact []byte // this layer of the exact page, tokens [0, Hi) written
	Coded []byte // this layer of the coded page
	Layer int
	First int // position of the page's token 0
	Lo    int // tokens [Lo, Hi) are new since the last call for this page
	Hi    int
	// Important gives, per KV head and half (0 = K, 1 = V), the set of tokens
	// that get the second plane (SecondTokens and SecondImportant formats); nil means none. A set
	// may not be larger than the format allows.
	Important func(head, half int) uint64
}

// Encode codes whatever tokens [Lo, Hi) of a page complete: hq formats the whole
// page with its last token, hack K's tokens at once and V's partitions when they
// are full (with rqe=off the open one again and again), int8, int4 and kvquant tokens
// at once, kivi groups of tokens when they are full. The result depends only
// on the exact page, the layer and the position, never on how the tokens were
// cut into calls. A call with Lo = 0 starts the page anew.
func (g *Geometry) Encode(a EncodeArgs) { g.EncodeIn(a, new(Scratch)) }

// EncodeIn is Encode with memory to work in, so as not to allocate.
func (g *Geometry) EncodeIn(a EncodeArgs, w *Scratch) {
	g = g.At(a.Layer)
	f := g.Format
	if !f.Coded() || a.Lo >= a.Hi || f.Family == FamilyHQ && a.Hi < f.PageTokens {
		return
	}
	if a.Lo == 0 || f.Family == FamilyHQ {
		clear(a.Coded[:g.CodedBytes()]) // no bytes of the page's last owner
	}
	w.fit(g)
	if f.Family == FamilyCacheGen {
		g.encodeCacheGen(&a, w)
		return
	}
	for head := range g.KVHeads {
		page := g.CodedHead(a.Coded, head)
		for half := range 2 {
			src := g.ExactK(a.Exact, head)
			if half == HalfV {
				src = g.ExactV(a.Exact, head)
			}
			switch f.Family {
			case FamilyHQ:
				g.encodeHQ(&a, w, page, src, head, half)
			case FamilyGroup:
				w.load(src, g.HeadDim, a.Lo, a.Hi)
				g.Group.Encode(w, page, half, w.x, a.Lo, a.Hi)
			case FamilyKVQuant:
				g.encodeNUQ(&a, w, page, src, head, half)
			default:
				g.encodeHack(&a, w, page, src, head, half)
			}
		}
	}
}

// Scratch is what coding one half of one head takes. The zero value is ready; it
// serves one call at a time and any geometry.
type Scratch struct {
	Vectors *Vectors // nil: the portable loops

	x     []float32 // [token][channel]
	codes []uint8   // [token][channel]
	rows  []uint8   // codes of the tokens of a set, side by side; kvquant's third bits

	column []float32 // one per token or channel

	lo, hi, zero, inverse []float32 // per channel
	sums                  []uint16
	key                   uint64 // of a token's rounding

	cos, sin []float32 // of where a page begins (kvquant)
	far      []int     // channels of a token
}

func (w *Scratch) fit(g *Geometry) {
	w.size(g.Format.PageTokens, g.HeadDim)
	n := g.Format.PageTokens * g.HeadDim
	if more := g.HQ[HalfK].Mask > 0 || g.HQ[HalfV].Mask > 0 || g.NUQ[HalfK].High > 0; more && len(w.rows) < n {
		w.rows = make([]uint8, n)
	}
}

// size makes room for tokens of d channels.
func (w *Scratch) size(tokens, d int) {
	if n := tokens * d; len(w.x) < n {
		w.x, w.codes = make([]float32, n), make([]uint8, n)
	}
	if t := max(tokens, d); len(w.column) < t {
		w.column, w.lo, w.hi = make([]float32, t), make([]float32, t), make([]float32, t)
		w.zero, w.inverse, w.sums = make([]float32, t), make([]float32, t), make([]uint16, t)
		w.cos, w.sin = make([]float32, t), make([]float32, t)
	}
}

// maxF16 is the largest finite half.
const maxF16 = 65504

// saturate makes x representable: infinities and what is beyond the range of
// float16 become its ends, NaN becomes 0.
func saturate(x float32) float32 {
	switch {
	case x != x:
		return 0
	case x > maxF16:
		return maxF16
	case x < -maxF16:
		return -maxF16
	}
	return x
}

// roundF16 is x as a float16 stores it.
func roundF16(x float32) float32 { return tensor.F16ToF32(tensor.F32ToF16(saturate(x))) }

// PutExact stores K and V of tokens tok, tok+1, … ([rows][KVHeads][HeadDim] each,
// in the cache's basis) in one layer of an exact page. Values beyond float16
// saturate.
func (g *Geometry) PutExact(page []byte, tok int, k, v []float32) {
	put := putRow
	if g.Format.Wide {
		put = putWideRow
	}
	d, width := g.HeadDim, g.KVHeads*g.HeadDim
	for head := range g.KVHeads { // head by head: a head's tokens lie side by side
		at := tok * g.exactRow()
		for i := head * d; i < len(k); i += width {
			put(g.ExactK(page, head)[at:], k[i:i+d])
			put(g.ExactV(page, head)[at:], v[i:i+d])
			at += g.exactRow()
		}
	}
}

func putWideRow(dst []byte, x []float32) {
	for i, v := range x {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func putRow(dst []byte, x []float32) {
	for i, v := range x {
		binary.LittleEndian.PutUint16(dst[2*i:], tensor.F32ToF16(saturate(v)))
	}
}
