package encode

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// blockTokens is the number of tokens that are coded together: the lanes of the
// widest vector, or of two narrower ones.
const blockTokens = 16

// levels says how a block's tokens are coded, lane by lane.
type levels struct {
	last, half [blockTokens]float32
	places     [blockTokens]float32 // 4 where a 2-bit code stands in the place of a 4-bit one's upper half, else 1
	clips      [5][blockTokens]float32
}

// fitted is how a block's tokens are coded, level = (x - zero)·inverse + 1/2, and
// what their codes then stand for, code·scale + storedZero: scales, inverses, zeros,
// stored zeros.
type fitted [4][blockTokens]float32

// Kernels are the kernels of one level. The functions trust their arguments; l
// and f point to levels and fitted. nil leaves it to package quant.
type Kernels struct {
	narrow               func(dst *byte, src *float32, n int)
	load                 func(dst *float32, src *byte, stride, n int)
	fit                  func(x *float32, n int, l, f *float32, clips int, centred, norm bool)
	packKeys, packValues func(x *float32, n int, l, f *float32, top, low *byte, stride int)

	lent *quant.Vectors // what package quant codes other formats with, if not nil
}

// For makes the kernels of a level, which this machine must have.
func For(l cpu.Level) *Kernels {
	k := new(Kernels)
	k.use(l)
	return k
}

// Scratch is what Encode needs between calls so as not to allocate. The zero
// value is ready; it serves one call at a time and any geometry.
type Scratch struct {
	x         []float32 // [channel][blockTokens] of one segment, padded to whole words
	plane     []byte    // second plane of all tokens, where the page keeps some rows of it
	two, four levels    // of 2-bit and of 4-bit tokens
	mixed     levels
	fit       fitted
	most      [blockTokens]float32 // of the leading channels that share a scale
	plain     quant.Scratch        // of what is left to quant
}

func (s *Scratch) prepare(g *quant.Geometry) {
	width := (g.HeadDim + 31) / 32 * 32
	if len(s.x) < width*blockTokens {
		s.x = make([]float32, width*blockTokens)
	}
	if n := width * g.Format.PageTokens / 4; len(s.plane) < n {
		s.plane = make([]byte, n)
	}
	if s.two.last[0] != 0 {
		return
	}
	for lane := range blockTokens {
		s.two.set(lane, quant.HQCode(false), 1)
		s.four.set(lane, quant.HQCode(true), 1)
	}
}

func (l *levels) set(lane int, u quant.Uniform, places float32) {
	l.last[lane], l.half[lane], l.places[lane] = u.Last, u.Half, places
	for i, c := range u.Clips {
		l.clips[i][lane] = c
	}
}

// PutExact stores K and V of tokens tok, tok+1, … ([rows][KVHeads][HeadDim] each,
// in the cache's basis) in one layer of an exact page: quant.Geometry.PutExact.
func (k *Kernels) PutExact(g *quant.Geometry, page []byte, tok int, key, value []float32) {
	if k.narrow == nil || g.ExactType() != tensor.F16 {
		g.PutExact(page, tok, key, value)
		return
	}
	for head := range g.KVHeads {
		k.putHead(g, g.ExactK(page, head), tok, head, key)
		k.putHead(g, g.ExactV(page, head), tok, head, value)
	}
}

// putHead stores one head's part of rows of K or V.
func (k *Kernels) putHead(g *quant.Geometry, half []byte, tok, head int, x []float32) {
	d, width := g.HeadDim, g.KVHeads*g.HeadDim
	half = half[2*d*tok:]
	for i := head * d; i < len(x); i += width {
		row := x[i : i+d]
		k.narrow(&half[:2*d][0], &row[0], d)
		half = half[2*d:]
	}
}

// Encode codes whatever tokens [Lo, Hi) of a page complete: see
// quant.Geometry.Encode.
func (k *Kernels) Encode(g *quant.Geometry, a quant.EncodeArgs, s *Scratch) {
	f := g.Format
	if k.fit == nil || f.Family != quant.FamilyHQ || f.PageTokens%blockTokens != 0 || f.PageTokens > 64 {
		s.plain.Vectors = k.lent
		g.EncodeIn(a, &s.plain)
		return
	}
	if a.Lo >= a.Hi || a.Hi < f.PageTokens {
		return
	}
	s.prepare(g)
	clear(a.Coded[:g.CodedBytes()]) // no bytes of the page's last owner
	for head := range g.KVHeads {
		page := g.CodedHead(a.Coded, head)
		k.encodeHalf(g, s, page, g.ExactK(a.Exact, head), quant.HalfK, g.SecondSet(&a, head, quant.HalfK))
		k.encodeHalf(g, s, page, g.ExactV(a.Exact, head), quant.HalfV, g.SecondSet(&a, head, quant.HalfV))
	}
}

// encodeHalf codes K or V of one head; set are the tokens with the second plane.
func (k *Kernels) encodeHalf(g *quant.Geometry, s *Scratch, page, src []byte, half int, set uint64) {
	l, tokens := &g.HQ[half], g.Format.PageTokens
	if l.Mask >= 0 {
		binary.LittleEndian.PutUint64(page[l.Mask:], set)
	}
	for i := l.NSegments - 1; i >= 0; i-- { // what a segment shares comes after it
		seg := l.Segments[i]
		plane := planeOf(page, seg.Top, seg.Width*tokens/4)
		var low []byte
		switch {
		case l.Refined:
		case l.Mask >= 0:
			low = s.plane[:seg.Width*tokens/4]
		case seg.Low >= 0:
			low = planeOf(page, seg.Low, seg.Width*tokens/4)
		}
		for t := 0; t < tokens; t += blockTokens {
			lv := &s.two
			switch {
			case low == nil:
			case l.Mask >= 0:
				lv = s.mix(set >> t)
			default:
				lv = &s.four
			}
			k.encodeBlock(g, s, page, src, half, seg, t, lv, plane, low)
		}
		switch {
		case l.Refined && set == 0:
		case l.Refined:
			g.Refine(&s.plain, page, src, half, set)
		case l.Mask >= 0:
			gatherRows(half, page[seg.Low:], s.plane, seg.Width, set)
		}
	}
}

func planeOf(page []byte, at, n int) []byte { return page[at : at+n : at+n] }

// mix is the levels of a block in which the tokens of set have the second plane.
func (s *Scratch) mix(set uint64) *levels {
	for lane := range blockTokens {
		second := set>>lane&1 == 1
		places := float32(4)
		if second {
			places = 1
		}
		s.mixed.set(lane, quant.HQCode(second), places)
	}
	return &s.mixed
}

// encodeBlock codes the tokens of one block, from token t on, of one segment.
func (k *Kernels) encodeBlock(g *quant.Geometry, s *Scratch, page, src []byte, half int, seg quant.Segment, t int, lv *levels, top, low []byte) {
	d, n := g.HeadDim, seg.Hi-seg.Lo
	lead := g.HQ[half].Segments[0]
	if lead.Shared && seg.Lo > 0 {
		k.reach(s, lead, src[2*d*t:2*d*(t+blockTokens)], d)
	}
	if n <= 0 || n%8 != 0 || seg.Hi > d {
		panic(fmt.Sprintf("BUG: channels [%d,%d) of %d to code", seg.Lo, seg.Hi, d))
	}
	x := s.x[:seg.Width*blockTokens]
	src = src[2*d*t : 2*d*(t+blockTokens)]
	k.load(&x[0], &src[2*seg.Lo], 2*d, n)
	for i := n * blockTokens; i < len(x); i++ {
		x[i] = -math.MaxFloat32 // what pads a plane is coded as 0
	}
	clips := len(lv.clips)
	if !g.Format.Clip {
		clips = 1
	}
	l, f := &lv.last[0], &s.fit[0][0]
	if seg.Shared {
		s.share(page[seg.Scale+2*t:], lv)
	} else {
		k.fit(&x[0], n, l, f, clips, g.Format.Symmetric, g.Format.Norm && lv != &s.four)
		if lead.Shared {
			s.raise(lv)
		}
		k.narrow(&page[seg.Scale+2*t:][:2*blockTokens][0], f, blockTokens)
	}
	if seg.Zero >= 0 {
		k.narrow(&page[seg.Zero+2*t:][:2*blockTokens][0], &s.fit[3][0], blockTokens)
	}
	at := t * seg.Width / 4
	var lower *byte
	if low != nil {
		lower = &low[at : at+blockTokens*seg.Width/4][0]
	}
	upper := &top[at : at+blockTokens*seg.Width/4][0]
	if half == quant.HalfK {
		k.packKeys(&x[0], seg.Width/16, l, f, upper, lower, 2*seg.Width)
		return
	}
	k.packValues(&x[0], seg.Width/32, l, f, upper, lower, seg.Width)
}

// reach finds the largest of each token's leading channels.
func (k *Kernels) reach(s *Scratch, lead quant.Segment, src []byte, d int) {
	x := s.x[:lead.Hi*blockTokens]
	k.load(&x[0], &src[0], 2*d, lead.Hi)
	s.most = [blockTokens]float32{}
	for ; len(x) > 0; x = x[blockTokens:] {
		for lane, v := range x[:blockTokens] {
			s.most[lane] = max(s.most[lane], v, -v)
		}
	}
}

// raise makes the scales of a block what its leading channels need at least.
func (s *Scratch) raise(lv *levels) {
	for lane, reach := range s.most {
		if least := quant.SharedScale(reach); least > s.fit[0][lane] {
			s.fit[0][lane], s.fit[1][lane], s.fit[2][lane] = least, 1/least, -lv.half[lane]*least
		}
	}
}

// share takes a quarter of a block's stored scales.
func (s *Scratch) share(scales []byte, lv *levels) {
	for lane := range blockTokens {
		scale := tensor.GetF16(scales, lane) / 4
		s.fit[1][lane], s.fit[2][lane] = 0, -lv.half[lane]*scale
		if scale != 0 {
			s.fit[1][lane] = 1 / scale
		}
	}
}

// gatherRows copies the rows of the tokens in set, side by side, from a plane of
// all tokens.
func gatherRows(half int, dst, src []byte, width int, set uint64) {
	for row := 0; set != 0; row++ {
		t := bits.TrailingZeros64(set)
		set &= set - 1
		if half == quant.HalfK {
			for w := range width / 16 {
				copy(dst[4*quant.KeyWord(width, row, w):][:4], src[4*quant.KeyWord(width, t, w):])
			}
			continue
		}
		// Words of eight channels lie side by side; a token is a byte of each.
		for g := range width / 32 {
			to, from := dst[4*quant.ValueWord(width, row/4, g, 0)+row%4:], src[4*quant.ValueWord(width, t/4, g, 0)+t%4:]
			for c8 := range 8 {
				to[4*c8] = from[4*c8]
			}
		}
	}
}
