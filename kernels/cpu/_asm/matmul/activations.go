package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// strided walks dwords that lie m dwords apart, four to a base register.
type strided struct {
	p, m4, m12 reg.Register
	n          int
}

func startStrided(name, doc string) (s *strided, src, n reg.Register) {
	TEXT(name, NOSPLIT, "func(dst *byte, m int, src *float32, n int)")
	Pragma("noescape")
	Doc(name + " " + doc)
	s = &strided{p: Load(Param("dst"), GP64()), m4: Load(Param("m"), GP64()), m12: GP64()}
	SHLQ(Imm(2), s.m4)
	LEAQ(Mem{Base: s.m4, Index: s.m4, Scale: 2}, s.m12)
	return s, Load(Param("src"), GP64()), Load(Param("n"), GP64())
}

// next is the place of the next dword.
func (s *strided) next() Mem {
	if s.n == 4 {
		LEAQ(Mem{Base: s.p, Index: s.m4, Scale: 4}, s.p)
		s.n = 0
	}
	s.n++
	return []Mem{
		{Base: s.p}, {Base: s.p, Index: s.m4, Scale: 1}, {Base: s.p, Index: s.m4, Scale: 2}, {Base: s.p, Index: s.m12, Scale: 1},
	}[s.n-1]
}

// flush moves the base beyond the last place.
func (s *strided) flush() {
	switch s.n {
	case 1, 2, 4:
		LEAQ(Mem{Base: s.p, Index: s.m4, Scale: uint8(s.n)}, s.p)
	case 3:
		ADDQ(s.m12, s.p)
	}
	s.n = 0
}

// interleave writes floats with a stride.
func interleave() {
	s, src, n := startStrided("interleaveAVX2", "is interleave.")
	SUBQ(Imm(4), n)
	JLT(LabelRef("tail"))
	Label("loop")
	VMOVUPS(Mem{Base: src}, reg.X0)
	VMOVSS(reg.X0, s.next())
	for i := range 3 {
		VEXTRACTPS(Imm(uint64(i+1)), reg.X0, s.next())
	}
	s.flush()
	advance(src, 16)
	SUBQ(Imm(4), n)
	JGE(LabelRef("loop"))
	Label("tail")
	ADDQ(Imm(4), n)
	JE(LabelRef("done"))
	Label("one")
	VMOVSS(Mem{Base: src}, reg.X0)
	VMOVSS(reg.X0, s.next())
	s.flush()
	advance(src, 4)
	DECQ(n)
	JNE(LabelRef("one"))
	Label("done")
	VZEROUPPER()
	RET()
}

// encode turns blocks of 32 floats into records: see package matmul.
func encode() {
	s, src, n := startStrided("encodeAVX2", "is encode.")
	magnitude, ones, shorts, order := reg.Y15, reg.Y14, reg.Y13, reg.Y12
	top127, tiny := reg.X11, reg.X10
	VPCMPEQD(magnitude, magnitude, magnitude)
	VPSRLW(Imm(15), magnitude, shorts) // 1 as int16
	VPSRLD(Imm(1), magnitude, magnitude)
	VPCMPEQD(ones, ones, ones)
	VPABSB(ones, ones) // 1 as bytes
	// packs interleaves the dwords of the two lanes; this undoes it.
	index := GLOBL("packedOrder", RODATA|NOPTR)
	for i, d := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
		DATA(4*i, U32(d))
	}
	VMOVDQU(index, order)
	g := GP32()
	MOVL(U32(0x42fe0000), g) // 127
	VMOVD(g, top127)
	MOVL(U32((127-100)<<23), g) // 2⁻¹⁰⁰
	VMOVD(g, tiny)

	Label("block")
	x := []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3}
	abs := []reg.VecPhysical{reg.Y4, reg.Y5, reg.Y6, reg.Y7}
	for i := range x {
		VMOVUPS(Mem{Base: src, Disp: 32 * i}, x[i])
		VPAND(magnitude, x[i], abs[i])
	}
	VPMAXUD(abs[1], abs[0], abs[0])
	VPMAXUD(abs[3], abs[2], abs[2])
	VPMAXUD(abs[2], abs[0], abs[0])
	VEXTRACTI128(Imm(1), reg.Y4, reg.X5)
	VPMAXUD(reg.X5, reg.X4, reg.X4)
	VPSHUFD(Imm(0x4e), reg.X4, reg.X5)
	VPMAXUD(reg.X5, reg.X4, reg.X4)
	VPSHUFD(Imm(0xb1), reg.X4, reg.X5)
	VPMAXUD(reg.X5, reg.X4, reg.X4)
	largest, inverse, scale := reg.X4, reg.X5, reg.X6
	VDIVSS(largest, top127, inverse)
	VDIVSS(top127, largest, scale)
	VCMPSS(Imm(5), tiny, largest, reg.X7) // not less than; true for NaN
	VANDPS(reg.X7, inverse, inverse)
	VANDPS(reg.X7, scale, scale)
	VBROADCASTSS(inverse, reg.Y5)
	for i := range x {
		VMULPS(reg.Y5, x[i], x[i])
		VCVTPS2DQ(x[i], x[i])
	}
	VPACKSSDW(x[1], x[0], x[0])
	VPACKSSDW(x[3], x[2], x[2])
	VPACKSSWB(x[2], x[0], x[0])
	VPERMD(x[0], order, x[0])
	VEXTRACTI128(Imm(1), reg.Y0, reg.X1)
	for _, half := range []reg.VecPhysical{reg.X0, reg.X1} {
		VMOVD(half, s.next())
		for i := range 3 {
			VPEXTRD(Imm(uint64(i+1)), half, s.next())
		}
	}
	VPMADDUBSW(x[0], ones, x[0])
	VPMADDWD(shorts, x[0], x[0])
	VPHADDD(x[0], x[0], x[0])
	VPHADDD(x[0], x[0], x[0])
	VEXTRACTI128(Imm(1), reg.Y0, reg.X1)
	first, second, sum := GP32(), GP32(), GP32()
	VMOVD(reg.X0, first)
	VMOVD(reg.X1, second)
	MOVL(first, sum)
	ADDL(second, sum)
	VCVTSI2SSL(sum, scale, reg.X7)
	VMULSS(scale, reg.X7, reg.X7)
	VMOVSS(scale, s.next())
	VMOVSS(reg.X7, s.next())
	NEGL(sum)
	SHLL(Imm(3), sum)
	eight := GP32()
	MOVL(sum, eight)
	SHLL(Imm(4), sum)
	MOVL(sum, s.next())
	MOVL(eight, s.next())
	for _, half := range []reg.GPVirtual{first, second} {
		NEGL(half)
		SHLL(Imm(5), half)
		MOVL(half, s.next())
	}
	s.flush()
	advance(src, 128)
	SUBQ(Imm(32), n)
	JNE(LabelRef("block"))
	VZEROUPPER()
	RET()
}
