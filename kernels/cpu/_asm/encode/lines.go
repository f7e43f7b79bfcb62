package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

// The kernels of quant.Vectors: eight channels at a time, at 256 bits. Their counts
// are positive multiples of eight.

// line is the address of eight floats, words or bytes from i on.
func line(base, i reg.Register, size uint8) Mem { return Mem{Base: base, Index: i, Scale: size} }

// eights runs body over i in eights to n.
func eights(label string, n reg.Register, body func(i reg.Register)) {
	i := GP64()
	XORQ(i, i)
	Label(label)
	body(i)
	ADDQ(Imm(8), i)
	CMPQ(i, n)
	JL(LabelRef(label))
}

// widenLine generates quant.Vectors.Load.
func widenLine() {
	lib.AVX2.Func("widenLine", "(dst *float32, src *byte, n int)", "is quant.Vectors.Load.")
	dst, src, n := param("dst"), param("src"), param("n")
	eights("line", n, func(i reg.Register) {
		x := YMM()
		VCVTPH2PS(line(src, i, 2), x)
		tameFloats(x)
		VMOVUPS(x, line(dst, i, 4))
	})
	lib.Finish()
}

// tameFloats makes infinities the largest finite float16s and NaN 0.
func tameFloats(x reg.VecVirtual) {
	ordered := YMM()
	VCMPPS(Imm(7), x, x, ordered)
	VANDPS(ordered, x, x)
	most, least := lib.AVX2.Broadcast(65504), lib.AVX2.Broadcast(-65504)
	VMINPS(most, x, x)
	VMAXPS(least, x, x)
}

// ranges generates quant.Vectors.Ranges.
func ranges() {
	lib.AVX2.Func("ranges", "(lo, hi, x *float32, stride, rows, n int)", "is quant.Vectors.Ranges.")
	lo, hi, x, stride, n := param("lo"), param("hi"), param("x"), param("stride"), param("n")
	SHLQ(Imm(2), stride)
	at, left := GP64(), GP64()
	eights("channels", n, func(i reg.Register) {
		least, most := YMM(), YMM()
		LEAQ(line(x, i, 4), at)
		Load(Param("rows"), left)
		VMOVUPS(Mem{Base: at}, least)
		VMOVAPS(least, most)
		Label("rows")
		v := YMM()
		VMOVUPS(Mem{Base: at}, v)
		VMINPS(v, least, least)
		VMAXPS(v, most, most)
		ADDQ(stride, at)
		DECQ(left)
		JNZ(LabelRef("rows"))
		VMOVUPS(least, line(lo, i, 4))
		VMOVUPS(most, line(hi, i, 4))
	})
	lib.Finish()
}

// extremes generates quant.Vectors.Extremes.
func extremes() {
	lib.AVX2.Func("extremes", "(x *float32, n int) (lo, hi float32)", "is quant.Vectors.Extremes.")
	x, n := param("x"), param("n")
	least, most := YMM(), YMM()
	VMOVUPS(Mem{Base: x}, least)
	VMOVAPS(least, most)
	eights("line", n, func(i reg.Register) {
		v := YMM()
		VMOVUPS(line(x, i, 4), v)
		VMINPS(v, least, least)
		VMAXPS(v, most, most)
	})
	for _, f := range []struct {
		x    reg.VecVirtual
		fold func(...Op)
		to   string
	}{{least, VMINPS, "lo"}, {most, VMAXPS, "hi"}} {
		rows.Across(f.x, XMM(), f.fold)
		VMOVSS(f.x.AsX(), lib.Address(Return(f.to)))
	}
	lib.Finish()
}

// levels generates quant.Vectors.Levels.
func levels(u rows.Uniform) {
	lib.AVX2.Func("levels", "(codes *byte, x, zero, inverse *float32, n int, first, last float32, key *uint64)", "is quant.Vectors.Levels.")
	codes, x, zero, inverse, n, key := param("codes"), param("x"), param("zero"), param("inverse"), param("n"), param("key")
	u.Key, u.Step, u.Element = reg.Y0, reg.Y1, [2]reg.VecPhysical{reg.Y2, reg.Y3}
	u.Z, u.T, u.W = [2]reg.VecPhysical{reg.Y4, reg.Y5}, reg.Y6, reg.Y7
	y, left, first, last, base := reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.X12
	VBROADCASTSS(lib.Address(Param("first")), first)
	VBROADCASTSS(lib.Address(Param("last")), last)
	VCVTTPS2DQ(first.AsX(), base)
	VPXOR(left.AsX(), left.AsX(), left.AsX())
	VPSHUFB(left.AsX(), base, base) // its lowest byte everywhere
	scaled := func(i reg.Register) {
		VMOVUPS(line(x, i, 4), y)
		VSUBPS(line(zero, i, 4), y, y)
		VMULPS(line(inverse, i, 4), y, y)
		VMAXPS(first, y, y)
		VMINPS(last, y, y)
	}
	store := func(i reg.Register) {
		VEXTRACTI128(Imm(1), y, left.AsX())
		VPACKUSDW(left.AsX(), y.AsX(), y.AsX())
		VPACKUSWB(y.AsX(), y.AsX(), y.AsX())
		VPADDB(base, y.AsX(), y.AsX())
		VMOVQ(y.AsX(), line(codes, i, 1))
	}
	TESTQ(key, key)
	JNZ(LabelRef("random"))
	half := reg.Y13
	VBROADCASTSS(lib.Const(0.5), half)
	eights("nearest", n, func(i reg.Register) {
		scaled(i)
		VSUBPS(first, y, y)
		VADDPS(half, y, y)
		VCVTTPS2DQ(y, y)
		store(i)
	})
	JMP(LabelRef("done"))
	Label("random")
	element, one := GP64(), GP64()
	XORQ(element, element)
	MOVQ(U32(1), one)
	u.Start(Mem{Base: key}, element, one)
	eights("stochastic", n, func(i reg.Register) {
		scaled(i)
		u.Round(y, left)
		store(i)
	})
	Label("done")
	lib.Finish()
}
