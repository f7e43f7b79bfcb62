package main

import (
	"fmt"
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

// merge merges vector by vector, 16 channels at a time if wide, 8 where that does
// not fit. low is nil without second planes. m is a Merge by its first field.
func merge(wide bool) {
	level, spread := "AVX2", YMM
	if wide {
		level, spread = "AVX512", ZMM
	}
	TEXT("merge"+level, NOSPLIT, "func(m, out *float32, sums, low *int32, nq, stride, width, n int)")
	Pragma("noescape")
	Doc("merge" + level + " is Kernels.Merge.")
	m, left := Load(Param("m"), GP64()), Load(Param("nq"), GP64())
	out, sums, low := Load(Param("out"), GP64()), Load(Param("sums"), GP64()), Load(Param("low"), GP64())
	stride, width, n := Load(Param("stride"), GP64()), Load(Param("width"), GP64()), Load(Param("n"), GP64())
	i, whole := GP64(), GP64()
	eighth := XMM()
	VMOVSS(consts.eighth, eighth)
	block := func(wide bool, alpha, step, centre, middle reg.VecVirtual) {
		as := func(r reg.VecVirtual) reg.Register {
			if wide {
				return r.AsZ()
			}
			return r.AsY()
		}
		x, y := YMM(), YMM()
		at := func(p reg.Register) Mem { return Mem{Base: p, Index: i, Scale: 4} }
		load := func(m Mem, r reg.Register) { VMOVUPS(m, r) }
		load(at(sums), as(x))
		VPSLLD(Imm(3), as(x), as(x))
		name := fmt.Sprintf("top%v", wide)
		TESTQ(low, low)
		JZ(LabelRef(name))
		load(at(low), as(y))
		VPADDD(as(y), as(y), as(y))
		VPADDD(as(y), as(x), as(x))
		Label(name)
		VPSUBD(as(middle), as(x), as(x))
		VCVTDQ2PS(as(x), as(x))
		VFMADD213PS(as(centre), as(step), as(x))
		VFMADD231PS(at(out), as(alpha), as(x))
		VMOVUPS(as(x), at(out))
	}

	Label("vector")
	alpha, step, centre, middle := spread(), spread(), spread(), spread()
	field := func(off int) Mem { return Mem{Base: m, Disp: off} }
	VBROADCASTSS(field(mergeAlpha), alpha)
	VMULSS(field(mergeScale), eighth, step.AsX())
	VBROADCASTSS(step.AsX(), step)
	VBROADCASTSS(field(mergeCentre), centre)
	sum, t := GP32(), GP32()
	IMUL3L(Imm(12), field(mergeSum), sum)
	IMUL3L(Imm(3), field(mergeLowSum), t)
	ADDL(t, sum)
	VMOVD(sum, middle.AsX())
	VPBROADCASTD(middle.AsX(), middle)
	XORQ(i, i)
	if wide {
		MOVQ(n, whole)
		ANDQ(I8(-16), whole)
		JZ(LabelRef("narrow"))
		Label("wide")
		block(true, alpha, step, centre, middle)
		ADDQ(Imm(16), i)
		CMPQ(i, whole)
		JLT(LabelRef("wide"))
		CMPQ(i, n)
		JEQ(LabelRef("next"))
	}
	Label("narrow")
	block(false, alpha, step, centre, middle)
	ADDQ(Imm(8), i)
	CMPQ(i, n)
	JLT(LabelRef("narrow"))
	Label("next")
	ADDQ(Imm(4), m)
	LEAQ(Mem{Base: out, Index: stride, Scale: 4}, out)
	LEAQ(Mem{Base: sums, Index: width, Scale: 4}, sums)
	TESTQ(low, low)
	JZ(LabelRef("noLow"))
	LEAQ(Mem{Base: low, Index: width, Scale: 4}, low)
	Label("noLow")
	DECQ(left)
	JNZ(LabelRef("vector"))
	VZEROUPPER()
	RET()
}

// The layout of the package's Merge, in bytes; a test compares.
const (
	mergeAlpha  = 0
	mergeScale  = 16
	mergeCentre = 32
	mergeSum    = 48
	mergeLowSum = 64
)

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
	store32(sum)
	VZEROUPPER()
	RET()
}

// store32 returns the lowest lane as an integer.
func store32(y reg.VecVirtual) {
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
	// Where all tokens are alike, nothing has to be chosen.
	CMPQ(set, I8(-1))
	JEQ(LabelRef("second"))
	TESTQ(set, set)
	JNZ(LabelRef("mixed"))
	VMOVAPS(factor[0], factor[1])
	VMOVAPS(factor[2], factor[3])
	Label("second")
	uniform := func(name string, zero bool) {
		Label(name)
		s, m := YMM(), YMM()
		VCVTPH2PS(Mem{Base: scale}, s)
		VMULPS(s, factor[3], m)
		VMULPS(s, factor[1], s)
		if zero {
			VCVTPH2PS(Mem{Base: zeros}, factor[0])
			VADDPS(factor[0], m, m)
			ADDQ(Imm(16), zeros)
		}
		VMOVUPS(s, Mem{Base: step})
		VMOVUPS(m, Mem{Base: bias})
		ADDQ(Imm(16), scale)
		ADDQ(Imm(32), step)
		ADDQ(Imm(32), bias)
		SUBQ(Imm(8), n)
		JNZ(LabelRef(name))
		VZEROUPPER()
		RET()
	}
	TESTQ(zeros, zeros)
	JNZ(LabelRef("asymmetric"))
	uniform("symmetric", false)
	uniform("asymmetric", true)

	Label("mixed")
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
	JZ(LabelRef("noZero"))
	VCVTPH2PS(Mem{Base: zeros}, s)
	VADDPS(s, m, m)
	ADDQ(Imm(16), zeros)
	Label("noZero")
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
