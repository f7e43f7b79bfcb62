package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

// broadcast loads a float64 argument into all lanes.
func broadcast(name string, to reg.VecPhysical) {
	VBROADCASTSD(address(Param(name)), to)
}

// float64s multiplies and adds without fusing, as the portable twins do; n is a
// positive multiple of four.
func float64s() {
	rows.Begin("affineAVX2", "affineAVX2 is Kernels.Affine for n elements, a positive multiple of four.",
		"func(acc *float64, dots *int32, scale, mins, sums *float64, x, y, z float64, n int)")
	acc, dots, scale, mins, sums := rows.Arg("acc"), rows.Arg("dots"), rows.Arg("scale"), rows.Arg("mins"), rows.Arg("sums")
	n := rows.Arg("n")
	x, y, z, a, b := reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4
	broadcast("x", x)
	broadcast("y", y)
	broadcast("z", z)
	i := GP64()
	XORQ(i, i)
	Label("loop")
	at := func(base reg.Register, size uint8) Mem { return Mem{Base: base, Index: i, Scale: size} }
	VCVTDQ2PD(at(dots, 4), a)
	VMULPD(x, a, a)
	VMULPD(at(sums, 8), y, b)
	VADDPD(b, a, a)
	VMULPD(at(scale, 8), a, a)
	VMULPD(at(mins, 8), z, b)
	VADDPD(b, a, a)
	VADDPD(at(acc, 8), a, a)
	VMOVUPD(a, at(acc, 8))
	ADDQ(Imm(4), i)
	CMPQ(i, n)
	JL(LabelRef("loop"))
	rows.End()

	rows.Begin("blendAVX2", "blendAVX2 is Kernels.Blend for n elements, a positive multiple of four.",
		"func(acc, v *float64, a, b float64, n int)")
	acc, v := rows.Arg("acc"), rows.Arg("v")
	n = rows.Arg("n")
	broadcast("a", x)
	broadcast("b", y)
	i = GP64()
	XORQ(i, i)
	Label("loop")
	VMULPD(at(acc, 8), x, a)
	VMULPD(at(v, 8), y, b)
	VADDPD(b, a, a)
	VMOVUPD(a, at(acc, 8))
	ADDQ(Imm(4), i)
	CMPQ(i, n)
	JL(LabelRef("loop"))
	rows.End()
}
