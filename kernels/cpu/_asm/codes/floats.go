package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// float is a float32 in a data section of its own.
func float(name string, x float32) Mem { return bytes(name, math.Float32bits(x)) }

func broadcast(m Mem) reg.VecVirtual {
	y := YMM()
	VBROADCASTSS(m, y)
	return y
}

// mergeAVX2 merges one vector's channels, 8 at a time. low is nil without second
// planes.
func mergeAVX2() {
	TEXT("mergeAVX2", NOSPLIT, "func(out *float32, sums, low *int32, n int, alpha, step, centre float32, middle int32)")
	Pragma("noescape")
	Doc("mergeAVX2 computes out = alpha·out + step·(8·sums + 2·low - middle) + centre.")
	out, sums, low := Load(Param("out"), GP64()), Load(Param("sums"), GP64()), Load(Param("low"), GP64())
	n := Load(Param("n"), GP64())
	arg := func(name string) reg.VecVirtual {
		a, err := Param(name).Resolve()
		if err != nil {
			panic(err)
		}
		return broadcast(a.Addr)
	}
	alpha, step, centre, middle := arg("alpha"), arg("step"), arg("centre"), arg("middle")
	x, y := YMM(), YMM()
	i := GP64()
	XORQ(i, i)
	TESTQ(low, low)
	JZ(LabelRef("top"))
	for _, second := range []bool{true, false} {
		loop := "top"
		if second {
			loop = "both"
		}
		Label(loop)
		VMOVDQU(Mem{Base: sums, Index: i, Scale: 4}, x)
		VPSLLD(Imm(3), x, x)
		if second {
			VMOVDQU(Mem{Base: low, Index: i, Scale: 4}, y)
			VPADDD(y, y, y)
			VPADDD(y, x, x)
		}
		VPSUBD(middle, x, x)
		VCVTDQ2PS(x, x)
		VFMADD213PS(centre, step, x)
		VFMADD231PS(Mem{Base: out, Index: i, Scale: 4}, alpha, x)
		VMOVUPS(x, Mem{Base: out, Index: i, Scale: 4})
		ADDQ(Imm(8), i)
		CMPQ(i, n)
		JLT(LabelRef(loop))
		VZEROUPPER()
		RET()
	}
}

// reduce folds the lanes of a YMM register into the lowest with op.
func reduce(y reg.VecVirtual, op func(...Op)) {
	t := XMM()
	VEXTRACTI128(Imm(1), y, t)
	op(t, y.AsX(), y.AsX())
	VPSHUFD(Imm(0x4e), y.AsX(), t)
	op(t, y.AsX(), y.AsX())
	VPSHUFD(Imm(0xb1), y.AsX(), t)
	op(t, y.AsX(), y.AsX())
}

func quantiseAVX2() {
	TEXT("maxAbsAVX2", NOSPLIT, "func(x *float32, n int) float32")
	Pragma("noescape")
	Doc("maxAbsAVX2 is Kernels.MaxAbs.")
	x, n := Load(Param("x"), GP64()), Load(Param("n"), GP64())
	sign, top, y := broadcast(bytes("absolute", 0x7fffffff)), YMM(), YMM()
	VXORPS(top, top, top)
	Label("loop")
	VANDPS(Mem{Base: x}, sign, y)
	VMAXPS(top, y, top) // NaN: the second source, top
	ADDQ(Imm(32), x)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	reduce(top, VMAXPS)
	Store(top.AsX(), ReturnIndex(0))
	VZEROUPPER()
	RET()

	TEXT("quantiseAVX2", NOSPLIT, "func(codes *int8, x *float32, n int, inv float32) int32")
	Pragma("noescape")
	Doc("quantiseAVX2 is Kernels.Quantise.")
	codes := Load(Param("codes"), GP64())
	x, n = Load(Param("x"), GP64()), Load(Param("n"), GP64())
	a, err := Param("inv").Resolve()
	if err != nil {
		panic(err)
	}
	inv := broadcast(a.Addr)
	least, most := broadcast(float("least", -127)), broadcast(float("most", 127))
	half, offset := broadcast(float("offsetHalf", 128.5)), broadcast(bytes("offset", 128))
	sum := YMM()
	y = YMM()
	z := XMM()
	VPXOR(sum, sum, sum)
	Label("loop")
	VMULPS(Mem{Base: x}, inv, y)
	VMAXPS(least, y, y) // NaN: the least
	VMINPS(most, y, y)
	VADDPS(half, y, y)
	VCVTTPS2DQ(y, y)
	VPSUBD(offset, y, y)
	VPADDD(y, sum, sum)
	VEXTRACTI128(Imm(1), y, z)
	VPACKSSDW(z, y.AsX(), z)
	VPACKSSWB(z, z, z)
	VMOVQ(z, Mem{Base: codes})
	ADDQ(Imm(32), x)
	ADDQ(Imm(8), codes)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	reduce(sum, VPADDD)
	Store32(sum)
	VZEROUPPER()
	RET()
}

// Store32 returns the lowest lane as an integer.
func Store32(y reg.VecVirtual) {
	r := GP32()
	VMOVD(y.AsX(), r)
	Store(r, ReturnIndex(0))
}

func widenAVX2() {
	TEXT("widenAVX2", NOSPLIT, "func(step, bias *float32, scale, zero *byte, n int, set uint64, factors *float32)")
	Pragma("noescape")
	Doc("widenAVX2 is Kernels.KeyScales and ValueScales.")
	step, bias := Load(Param("step"), GP64()), Load(Param("bias"), GP64())
	scale, zeros := Load(Param("scale"), GP64()), Load(Param("zero"), GP64())
	n, set := Load(Param("n"), GP64()), Load(Param("set"), GP64())
	f := Load(Param("factors"), GP64())
	var factor [4]reg.VecVirtual
	for i := range factor {
		factor[i] = broadcast(Mem{Base: f, Disp: 4 * i})
	}
	bits := GLOBL("bits", 8|16)
	for i := range 8 {
		DATA(4*i, U32(1<<i))
	}
	lane, in, s, k, m := YMM(), YMM(), YMM(), YMM(), YMM()
	VMOVDQU(bits, lane)
	Label("loop")
	VMOVD(set.(reg.GPVirtual).As32(), in.AsX())
	SHRQ(Imm(8), set)
	VPBROADCASTD(in.AsX(), in)
	VPAND(lane, in, in)
	VPCMPEQD(lane, in, in)
	VCVTPH2PS(Mem{Base: scale}, s)
	VBLENDVPS(in, factor[3], factor[2], m)
	VBLENDVPS(in, factor[1], factor[0], k)
	VMULPS(s, m, m)
	VMULPS(s, k, k)
	TESTQ(zeros, zeros)
	JZ(LabelRef("symmetric"))
	VCVTPH2PS(Mem{Base: zeros}, s)
	VADDPS(s, m, m)
	ADDQ(Imm(16), zeros)
	Label("symmetric")
	VMOVUPS(k, Mem{Base: step})
	VMOVUPS(m, Mem{Base: bias})
	ADDQ(Imm(16), scale)
	ADDQ(Imm(32), step)
	ADDQ(Imm(32), bias)
	SUBQ(Imm(8), n)
	JNZ(LabelRef("loop"))
	VZEROUPPER()
	RET()
}

// prefetch asks for the lines of n bytes.
func prefetch() {
	TEXT("prefetchLines", NOSPLIT, "func(b *byte, n int)")
	Pragma("noescape")
	Doc("prefetchLines is Kernels.Prefetch.")
	b, n := Load(Param("b"), GP64()), Load(Param("n"), GP64())
	Label("loop")
	PREFETCHT0(Mem{Base: b})
	ADDQ(Imm(64), b)
	SUBQ(Imm(64), n)
	JGT(LabelRef("loop"))
	RET()
}
