package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

const packArgs = "(x *float32, n int, l, f *float32, top, low *byte, stride int)"

// coder turns the values of one part of a block into codes.
type coder struct {
	generator
	inverse, zero, none reg.VecVirtual
	last, places        Mem // there are not registers enough for all of two parts
}

func (g generator) coder(l, f reg.GPVirtual, i int, none reg.VecVirtual) coder {
	return coder{g,
		g.Load(g.part(f, offInverse, i)), g.Load(g.part(f, offZero, i)), none,
		g.part(l, offLast, i), g.part(l, offPlaces, i)}
}

// code is the codes of one channel as integers.
func (c coder) code(m Mem) reg.VecVirtual {
	y := c.Load(m)
	VSUBPS(c.zero, y, y)
	c.nearest(y, c.inverse, lib.Floats(0.5), c.none, c.last)
	VMULPS(c.places, y, y)
	VCVTTPS2DQ(y, y)
	return y
}

// planes gathers the bit pairs of codes: of two planes, or of one.
type planes struct {
	generator
	top, low reg.VecVirtual // low is nil where there is one plane
}

func (g generator) planes(both bool) planes {
	p := planes{generator: g, top: g.Zero()}
	if both {
		p.low = g.Zero()
	}
	return p
}

// put puts a channel's codes, which it changes, at a bit of the words.
func (p planes) put(code reg.VecVirtual, bit int) {
	if p.low == nil {
		p.or(code, bit, p.top)
		return
	}
	low := p.Vec()
	p.and(3, code, low)
	p.or(low, bit, p.low)
	VPSRLD(U8(2), code, code)
	p.or(code, bit, p.top)
}

func (p planes) or(v reg.VecVirtual, bit int, dst reg.VecVirtual) {
	if bit > 0 {
		VPSLLD(U8(uint8(bit)), v, v)
	}
	if p.Wide() {
		VPORD(v, dst, dst)
		return
	}
	VPOR(v, dst, dst)
}

func (p planes) and(mask uint32, v, dst reg.VecVirtual) {
	if p.Wide() {
		VPANDD(lib.Words(mask), v, dst)
		return
	}
	VPAND(lib.Words(mask), v, dst)
}

// eachPlanes generates body twice: for one plane, and for two where low is not
// nil.
func eachPlanes(low reg.GPVirtual, body func(both bool)) {
	two := lib.NewLabel("two")
	TESTQ(low, low)
	JNZ(LabelRef(two))
	body(false)
	lib.Finish()
	Label(two)
	body(true)
	lib.Finish()
}

// packKeys: a word is 16 channels of one token, byte b, bit pair i being channel
// 4i+b, so that lanes hold words.
func (g generator) packKeys() {
	g.Func("packKeys", packArgs,
		"codes n >= 1 words of a block of K; the words of tokens 8 to 15 lie stride bytes after those of 0 to 7.")
	low := param("low")
	eachPlanes(low, func(both bool) {
		for i := range g.parts {
			g.packKeysPart(i, both)
		}
	})
}

func (g generator) packKeysPart(i int, both bool) {
	x, n, l, f, top, stride := param("x"), param("n"), param("l"), param("f"), param("top"), param("stride")
	low := reg.GPVirtual(nil)
	if both {
		low = param("low")
	}
	if i > 0 {
		ADDQ(stride, top)
		if both {
			ADDQ(stride, low)
		}
	}
	c := g.coder(l, f, i, g.Zero())
	loop("words", n, func() {
		p := g.planes(both)
		for j := range 16 {
			p.put(c.code(g.part(x, j*columnBytes, i)), 8*(j%4)+2*(j/4))
		}
		g.storeWords(p.top, top, stride)
		ADDQ(U8(32), top)
		if both {
			g.storeWords(p.low, low, stride)
			ADDQ(U8(32), low)
		}
		ADDQ(U32(16*columnBytes), x)
	})
}

// storeWords stores the words of the tokens of a part, eight by eight.
func (g generator) storeWords(v reg.VecVirtual, at, stride reg.GPVirtual) {
	VMOVDQU(v.AsY(), Mem{Base: at})
	if g.Wide() {
		VEXTRACTI64X4(U8(1), v, v.AsY())
		VMOVDQU(v.AsY(), Mem{Base: at, Index: stride, Scale: 1})
	}
}

// packValues: a word is four tokens and four channels, byte b, bit pair i being
// token 4q+b, channel 32g+8i+c8.
func (g generator) packValues() {
	g.Func("packValues", packArgs,
		"codes n >= 1 groups of 32 channels of a block of V; each four tokens' words lie stride bytes after the last four's.")
	low := param("low")
	eachPlanes(low, g.packValuesOf)
}

func (g generator) packValuesOf(both bool) {
	x, n, l, f, top, stride := param("x"), param("n"), param("l"), param("f"), param("top"), param("stride")
	low, thrice := reg.GPVirtual(nil), GP64()
	if both {
		low = param("low")
	}
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, thrice)
	coders, none := make([]coder, g.parts), g.Zero()
	for i := range coders {
		coders[i] = g.coder(l, f, i, none)
	}
	loop("groups", n, func() {
		c8 := GP64()
		MOVQ(U32(8), c8)
		loop("channels", c8, func() {
			sums := make([]planes, g.parts)
			for i := range sums {
				sums[i] = g.planes(both)
				for j := range 4 {
					sums[i].put(coders[i].code(g.part(x, 8*j*columnBytes, i)), 2*j)
				}
			}
			g.storeQuads(sums, func(p planes) reg.VecVirtual { return p.top }, top, stride, thrice)
			ADDQ(U8(4), top)
			if both {
				g.storeQuads(sums, func(p planes) reg.VecVirtual { return p.low }, low, stride, thrice)
				ADDQ(U8(4), low)
			}
			ADDQ(U32(columnBytes), x)
		})
		ADDQ(U32(24*columnBytes), x)
	})
}

// storeQuads stores one byte of each of 16 tokens as four words.
func (g generator) storeQuads(sums []planes, of func(planes) reg.VecVirtual, at, stride, thrice reg.GPVirtual) {
	word := [4]Mem{{Base: at}, {Base: at, Index: stride, Scale: 1}, {Base: at, Index: stride, Scale: 2}, {Base: at, Index: thrice, Scale: 1}}
	if g.Wide() {
		b := XMM()
		VPMOVDB(of(sums[0]), b)
		VMOVD(b, word[0])
		for q := 1; q < 4; q++ {
			VPEXTRD(U8(uint8(q)), b, word[q])
		}
		return
	}
	// Packing works within halves: tokens 0-3 and 8-11 end up in the lower one.
	v, hi := YMM(), XMM()
	VPACKUSDW(of(sums[1]), of(sums[0]), v)
	VPACKUSWB(v, v, v)
	VEXTRACTI128(U8(1), v, hi)
	VMOVD(v.AsX(), word[0])
	VMOVD(hi, word[1])
	VPEXTRD(U8(1), v.AsX(), word[2])
	VPEXTRD(U8(1), hi, word[3])
}
