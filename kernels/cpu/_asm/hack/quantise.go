package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

// quantising generates the 8-bit coding of vectors over their own ranges.
type quantising struct {
	rows.Uniform
	lo, inv, sum       reg.VecPhysical
	y, t               [4]reg.VecPhysical
	top, halves, zeros Mem
	order              Mem
	n                  reg.GPVirtual
	keys               reg.GPVirtual
	first, stride      reg.GPVirtual
}

// constants are those of both levels.
func constants() quantising {
	g := quantising{
		Uniform: rows.NewUniform(),
		top:     rows.Everywhere("top", 4, 0x437f0000), halves: rows.Everywhere("halves", 4, 0x3f000000),
		zeros: rows.Everywhere("zeros", 8, 0),
	}
	g.order = GLOBL("order", RODATA|NOPTR) // what packing leaves in the wrong order
	for i, lane := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
		DATA(4*i, U32(lane))
	}
	return g
}

// quantise generates the coding of some vectors of n floats, a positive multiple of
// 32: to nearest, or stochastically where there are keys.
func (g quantising) quantise(v rows.Vec) {
	g.Vec = v
	name := "quantise" + v.Name()
	rows.Begin(name, name+" codes vectors of n floats, a positive multiple of 32, over their own ranges: to nearest, or stochastically if keys is not nil. Strides are in elements, out's in those of affine.",
		"func(out *float32, ldo int, codes *byte, ldc int, x *float32, ldx int, vectors int, n int, keys *uint64, element int, stride int)")
	out, ldo, codes, ldc := rows.Arg("out"), rows.Arg("ldo"), rows.Arg("codes"), rows.Arg("ldc")
	x, ldx, vectors := rows.Arg("x"), rows.Arg("ldx"), rows.Arg("vectors")
	g.n, g.keys = rows.Arg("n"), rows.Arg("keys")
	g.first, g.stride = rows.Arg("element"), rows.Arg("stride")
	SHLQ(Imm(2), ldx)
	LEAQ(Mem{Base: ldo, Index: ldo, Scale: 2}, ldo)
	SHLQ(Imm(2), ldo)
	for i := range 4 {
		g.y[i], g.t[i] = v.Low(i), v.Low(4+i)
	}
	g.lo, g.inv, g.W, g.sum = v.Low(8), v.Low(9), v.Low(10), v.Low(11)
	g.Key, g.Step, g.Element = v.Low(12), v.Low(13), [2]reg.VecPhysical{v.Low(14), v.Low(15)}
	g.Z, g.T = [2]reg.VecPhysical{g.t[0], g.t[1]}, g.t[3]

	Label("vectors")
	g.extremes(x, out)
	g.Zero(g.sum)
	TESTQ(g.keys, g.keys)
	JNZ(LabelRef("stochastic"))
	g.loop("nearest", x, codes, false)
	JMP(LabelRef("coded"))
	Label("stochastic")
	g.Start(Mem{Base: g.keys}, g.first, g.stride)
	g.loop("random", x, codes, true)
	ADDQ(Imm(8), g.keys)
	Label("coded")
	g.total(out)
	ADDQ(ldo, out)
	ADDQ(ldc, codes)
	ADDQ(ldx, x)
	DECQ(vectors)
	JNZ(LabelRef("vectors"))
	rows.End()
}

// extremes finds the range of x, and leaves min and scale in out and, with the
// scale's inverse, in registers.
func (g *quantising) extremes(x, out reg.Register) {
	lo, hi, unordered := g.t[0], g.t[1], g.t[2]
	VMOVUPS(Mem{Base: x}, lo)
	VMOVAPS(lo, hi)
	nan := GP32()
	if g.Wide {
		KXORW(reg.K2, reg.K2, reg.K2)
	} else {
		VXORPS(unordered, unordered, unordered)
	}
	i := GP64()
	XORQ(i, i)
	Label("extremes")
	for j := 0; j < 32; j += g.Lanes() {
		y := g.y[j/g.Lanes()]
		VMOVUPS(at(x, i, 4, 4*j), y)
		VMINPS(y, lo, lo)
		VMAXPS(y, hi, hi)
		if g.Wide {
			VCMPPS(Imm(3), y, y, reg.K1)
			KORW(reg.K1, reg.K2, reg.K2)
		} else {
			VCMPPS(Imm(3), y, y, y)
			VORPS(y, unordered, unordered)
		}
	}
	ADDQ(Imm(32), i)
	CMPQ(i, g.n)
	JL(LabelRef("extremes"))
	if g.Wide {
		KMOVW(reg.K2, nan)
		NEGL(nan)
		SBBL(nan, nan) // all ones, which is NaN, if any is
	} else {
		VMOVMSKPS(unordered, nan)
		NEGL(nan)
		SBBL(nan, nan)
	}
	g.across(lo, VMINPS)
	g.across(hi, VMAXPS)
	low, high, scale, spare := lo.AsX(), hi.AsX(), g.y[0].AsX(), g.y[1].AsX()
	VMOVD(nan, spare)
	VORPS(spare, low, low)
	VORPS(spare, high, high)
	VMOVSS(low, Mem{Base: out, Disp: 4})
	VSUBSS(low, high, scale)
	VDIVSS(g.top, scale, scale)
	bits := GP32()
	MOVL(U32(0x0da24260), bits) // 1e-30
	VMOVD(bits, spare)
	VCMPSS(Imm(1), spare, scale, spare) // scale < 1e-30
	MOVL(U32(0x3f800000), bits)
	one := g.y[2].AsX()
	VMOVD(bits, one)
	VBLENDVPS(spare, one, scale, scale)
	VMOVSS(scale, Mem{Base: out})
	VDIVSS(scale, one, one)
	VBROADCASTSS(one, g.inv)
	VBROADCASTSS(low, g.lo)
}

// across folds the lanes of x into the first.
func (g *quantising) across(x reg.VecPhysical, fold func(...Op)) {
	t := g.y[0]
	if g.Wide {
		VEXTRACTF64X4(U8(1), x, t.AsY())
		fold(t.AsY(), x.AsY(), x.AsY())
	}
	rows.Across(x, t.AsX(), fold)
}

// loop codes the vector, 32 floats at a time.
func (g *quantising) loop(label string, x, codes reg.Register, random bool) {
	i := GP64()
	XORQ(i, i)
	Label(label)
	n := 32 / g.Lanes()
	for j := range n {
		y := g.y[j]
		VMOVUPS(at(x, i, 4, 4*g.Lanes()*j), y)
		VSUBPS(g.lo, y, y)
		VMULPS(g.inv, y, y)
		VMAXPS(g.zeros, y, y)
		VMINPS(g.top, y, y)
		if random {
			g.Round(y, g.t[2])
		} else {
			VADDPS(g.halves, y, y)
			VCVTTPS2DQ(y, y)
		}
	}
	if g.Wide {
		for j := range n {
			VPADDD(g.y[j], g.sum, g.sum)
			VPMOVDB(g.y[j], at(codes, i, 1, 16*j))
		}
	} else {
		y := g.y
		VPACKUSDW(y[1], y[0], y[0])
		VPACKUSDW(y[3], y[2], y[2])
		VPACKUSWB(y[2], y[0], y[0])
		VMOVDQU(g.order, y[1])
		VPERMD(y[0], y[1], y[0])
		VMOVDQU(y[0], at(codes, i, 1, 0))
		VPSADBW(g.zeros, y[0], y[0])
		VPADDQ(y[0], g.sum, g.sum)
	}
	ADDQ(Imm(32), i)
	CMPQ(i, g.n)
	JL(LabelRef(label))
}

// total stores the sum of the codes.
func (g *quantising) total(out reg.Register) {
	t := g.t[0].AsX()
	fold := VPADDQ
	if g.Wide {
		VEXTRACTI64X4(U8(1), g.sum, g.t[0].AsY())
		VPADDD(g.t[0].AsY(), g.sum.AsY(), g.sum.AsY())
		fold = VPADDD
	}
	VEXTRACTI128(Imm(1), g.sum.AsY(), t)
	fold(t, g.sum.AsX(), g.sum.AsX())
	VPSRLDQ(Imm(8), g.sum.AsX(), t)
	fold(t, g.sum.AsX(), g.sum.AsX())
	if g.Wide {
		VPSRLDQ(Imm(4), g.sum.AsX(), t)
		fold(t, g.sum.AsX(), g.sum.AsX())
	}
	VMOVD(g.sum.AsX(), Mem{Base: out, Disp: 8})
}
