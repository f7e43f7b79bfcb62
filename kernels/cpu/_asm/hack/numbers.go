package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

// loop runs body over index i in steps to n, a positive multiple of them.
func loop(n reg.Register, step uint64, body func(i reg.Register)) {
	i := GP64()
	XORQ(i, i)
	Label("loop")
	body(i)
	ADDQ(Imm(step), i)
	CMPQ(i, n)
	JL(LabelRef("loop"))
}

// at is element i of size bytes, and skip bytes on.
func at(base, i reg.Register, size uint8, skip int) Mem {
	return Mem{Base: base, Index: i, Scale: size, Disp: skip}
}

// address is where an argument or a result lies. avo's Load and Store would move
// floats by SSE instructions, which are slow among AVX ones.
func address(c gotypes.Component) Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// widen generates the widening of n numbers of the given bytes to float64, a
// positive multiple of four; convert leaves four of them in a vector.
func widen(name, what string, bytes uint8, convert func(src Mem, to reg.VecPhysical)) {
	rows.Begin(name, name+" widens n "+what+" to float64, a positive multiple of four.", "func(dst *float64, src *byte, n int)")
	dst, src, n := rows.Arg("dst"), rows.Arg("src"), rows.Arg("n")
	loop(n, 4, func(i reg.Register) {
		convert(at(src, i, bytes, 0), reg.Y0)
		VMOVUPD(reg.Y0, at(dst, i, 8, 0))
	})
	rows.End()
}

func widens() {
	widen("widenF16AVX2", "float16s", 2, func(src Mem, to reg.VecPhysical) {
		VCVTPH2PS(src, to.AsX())
		VCVTPS2PD(to.AsX(), to)
	})
	widen("widenBF16AVX2", "bfloat16s", 2, func(src Mem, to reg.VecPhysical) {
		VPMOVZXWD(src, to.AsX())
		VPSLLD(Imm(16), to.AsX(), to.AsX())
		VCVTPS2PD(to.AsX(), to)
	})
	widen("widenU8AVX2", "bytes", 1, func(src Mem, to reg.VecPhysical) {
		VPMOVZXBD(src, to.AsX())
		VCVTDQ2PD(to.AsX(), to)
	})
	widen("widenU16AVX2", "uint16s", 2, func(src Mem, to reg.VecPhysical) {
		VPMOVZXWD(src, to.AsX())
		VCVTDQ2PD(to.AsX(), to)
	})
}

// split generates the parting of pairs.
func split() {
	rows.Begin("splitAVX2", "splitAVX2 parts n pairs, a positive multiple of four: even elements to a, odd ones to b.",
		"func(a, b, src *float64, n int)")
	a, b, src, n := rows.Arg("a"), rows.Arg("b"), rows.Arg("src"), rows.Arg("n")
	twice := GP64()
	loop(n, 4, func(i reg.Register) {
		LEAQ(Mem{Base: i, Index: i, Scale: 1}, twice)
		VMOVUPD(at(src, twice, 8, 0), reg.Y0)
		VMOVUPD(at(src, twice, 8, 32), reg.Y1)
		VUNPCKLPD(reg.Y1, reg.Y0, reg.Y2)
		VUNPCKHPD(reg.Y1, reg.Y0, reg.Y3)
		VPERMPD(Imm(0xd8), reg.Y2, reg.Y2)
		VPERMPD(Imm(0xd8), reg.Y3, reg.Y3)
		VMOVUPD(reg.Y2, at(a, i, 8, 0))
		VMOVUPD(reg.Y3, at(b, i, 8, 0))
	})
	rows.End()
}

// narrow generates the rounding of float64s to float32.
func narrow() {
	rows.Begin("narrowAVX2", "narrowAVX2 rounds n float64s, a positive multiple of four.", "func(dst *float32, src *float64, n int)")
	dst, src, n := rows.Arg("dst"), rows.Arg("src"), rows.Arg("n")
	loop(n, 4, func(i reg.Register) {
		VCVTPD2PSY(at(src, i, 8, 0), reg.X0)
		VMOVUPS(reg.X0, at(dst, i, 4, 0))
	})
	rows.End()
}

// fold generates the folding of scales into a vector.
func fold() {
	rows.Begin("foldAVX2", "foldAVX2 is Kernels.Fold for n elements, a positive multiple of four.",
		"func(dst, x *float32, scale, mins *float64, n int) float64")
	dst, x, scale, mins, n := rows.Arg("dst"), rows.Arg("x"), rows.Arg("scale"), rows.Arg("mins"), rows.Arg("n")
	sum := reg.Y0
	VXORPD(sum, sum, sum)
	loop(n, 4, func(i reg.Register) {
		VMOVUPS(at(x, i, 4, 0), reg.X1)
		VCVTPD2PSY(at(scale, i, 8, 0), reg.X2)
		VMULPS(reg.X1, reg.X2, reg.X2)
		VMOVUPS(reg.X2, at(dst, i, 4, 0))
		VCVTPS2PD(reg.X1, reg.Y1)
		VMULPD(at(mins, i, 8, 0), reg.Y1, reg.Y1)
		VADDPD(reg.Y1, sum, sum)
	})
	VEXTRACTF128(Imm(1), sum, reg.X1)
	VADDPD(reg.X1, sum.AsX(), sum.AsX())
	VPERMILPD(Imm(1), sum.AsX(), reg.X1)
	VADDSD(reg.X1, sum.AsX(), sum.AsX())
	VMOVSD(sum.AsX(), address(ReturnIndex(0)))
	rows.End()
}

// fetch generates the fetching of memory into the cache.
func fetch() {
	rows.Begin("fetchLines", "fetchLines has n bytes, more than none, fetched.", "func(p *byte, n int)")
	p, n := rows.Arg("p"), rows.Arg("n")
	Label("loop")
	PREFETCHT0(Mem{Base: p})
	ADDQ(Imm(64), p)
	SUBQ(Imm(64), n)
	JG(LabelRef("loop"))
	RET()
}
