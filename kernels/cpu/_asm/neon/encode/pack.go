package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

// Registers of both ways to pack; those that move on within a part, beside fit's.
const (
	rTop, rLow, rStride, rPart    = neon.R(4), neon.R(5), neon.R(6), neon.R(9)
	atTop, atLow, rOffset, rEight = neon.R(10), neon.R(11), neon.R(12), neon.R(13)

	vTop, vLowBits, vCode, vPart    = neon.V(0), neon.V(1), neon.V(2), neon.V(3)
	vZero, vInverse, vPlaces, vPair = neon.V(4), neon.V(5), neon.V(6), neon.V(7)
)

// packer makes codes and gathers their bit pairs: of two planes, or of one.
type packer struct {
	*neon.Func
	both bool
}

// pack runs part for every vector of tokens, with its numbers at rX and rPart as
// its index; one way where there is one plane, another where low is not nil.
func pack(out *neon.File, name, doc string, part func(packer)) {
	f := out.Func(name, "(x *float32, n int, l, f *float32, top, low *byte, stride int)", doc)
	f.Arg("x", rX)
	f.Arg("n", rN)
	f.Arg("l", rL)
	f.Arg("f", rF)
	f.Arg("top", rTop)
	f.Arg("low", rLow)
	f.Arg("stride", rStride)
	f.Floats(0.5, vHalf)
	f.Zero(vNone)
	f.Words(3, vPair)
	f.Go("MOVD $0, %v", rPart)
	f.Go("CBNZ %v, two", rLow)
	packParts(packer{f, false}, part)
	f.Label("two")
	packParts(packer{f, true}, part)
}

func packParts(p packer, part func(packer)) {
	loop := p.NewLabel("part")
	p.Label(loop)
	p.Load(16, rL, offLast, vLast)
	p.Load(16, rL, offPlaces, vPlaces)
	p.Load(16, rF, offInverse, vInverse)
	p.Load(16, rF, offZero, vZero)
	p.Go("MOVD %v, %v", rX, rAt)
	p.Go("MOVD %v, %v", rN, rCount)
	part(p)
	for _, r := range []neon.R{rX, rL, rF} {
		p.Go("ADD $16, %v", r)
	}
	p.Go("ADD $1, %v", rPart)
	p.Go("CMP $%d, %v", parts, rPart)
	p.Go("BNE %s", loop)
	p.Go("RET")
}

// start starts new words.
func (p packer) start() {
	p.Zero(vTop)
	if p.both {
		p.Zero(vLowBits)
	}
}

// put puts the codes of the channel at into the words, from bit on.
func (p packer) put(at int, bit uint32) {
	p.Load(16, rAt, at, vCode)
	p.FSUB(neon.S4, vCode, vCode, vZero)
	nearest(p.Func, vCode, vInverse)
	p.FMUL(neon.S4, vCode, vCode, vPlaces)
	p.FCVTZS(neon.S4, vCode, vCode)
	or := func(v, words neon.V) {
		if bit > 0 {
			p.SHL(neon.S4, v, v, bit)
		}
		p.ORR(words, words, v)
	}
	if p.both {
		p.AND(vPart, vCode, vPair)
		or(vPart, vLowBits)
		p.USHR(neon.S4, vCode, vCode, 2)
	}
	or(vCode, vTop)
}

// each calls f for the planes' words and where they go.
func (p packer) each(f func(words neon.V, at, base neon.R)) {
	f(vTop, atTop, rTop)
	if p.both {
		f(vLowBits, atLow, rLow)
	}
}

// place moves to offset bytes from the planes' start.
func (p packer) place(offset neon.R) {
	p.each(func(_ neon.V, at, base neon.R) { p.Go("ADD %v, %v, %v", offset, base, at) })
}

// packKeys: a word is 16 channels of one token, byte b, bit pair i being channel
// 4i+b, so that lanes hold words.
func packKeys(p packer) {
	p.Go("LSR $1, %v, %v", rPart, rEight) // which eight tokens
	p.Go("MUL %v, %v, %v", rStride, rEight, rOffset)
	p.Go("AND $1, %v, %v", rPart, rEight)
	p.Go("ADD %v<<4, %v", rEight, rOffset)
	p.place(rOffset)
	count(p.Func, "words", rCount, func() {
		p.start()
		for j := range 16 {
			p.put(j*columnBytes, uint32(8*(j%4)+2*(j/4)))
		}
		p.each(func(words neon.V, at, _ neon.R) {
			p.Store(16, words, at, 0)
			p.Go("ADD $32, %v", at)
		})
		p.Go("ADD $%d, %v", 16*columnBytes, rAt)
	})
}

// packValues: a word is four tokens and four channels, byte b, bit pair i being
// token 4q+b, channel 32g+8i+c8.
func packValues(p packer) {
	p.Go("MUL %v, %v, %v", rStride, rPart, rOffset)
	p.place(rOffset)
	count(p.Func, "groups", rCount, func() {
		p.Go("MOVD $8, %v", rEight)
		count(p.Func, "channels", rEight, func() {
			p.start()
			for j := range 4 {
				p.put(8*j*columnBytes, uint32(2*j))
			}
			p.each(func(words neon.V, at, _ neon.R) {
				p.XTN(neon.S4, words, words, false)
				p.XTN(neon.H8, words, words, false)
				p.Store(4, words, at, 0)
				p.Go("ADD $4, %v", at)
			})
			p.Go("ADD $%d, %v", columnBytes, rAt)
		})
		p.Go("ADD $%d, %v", 24*columnBytes, rAt)
	})
}
