package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vectors is the loop over a tile's vectors.
type vectors struct {
	s, p, par, ends reg.GPVirtual // of the vector: scores, codes, 4-byte and 8-byte fields
	left            reg.GPVirtual
}

// each runs body for every vector.
func each(body func(vectors)) {
	l := vectors{s: GP64(), p: GP64(), par: GP64(), ends: GP64()}
	Load(Param("t"), l.s)
	l.left = Load(Param("nq"), GP64()).(reg.GPVirtual)
	LEAQ(Mem{Base: l.s, Disp: offP}, l.p)
	MOVQ(l.s, l.par)
	MOVQ(l.s, l.ends)
	Label("vector")
	body(l)
	ADDQ(U32(rowBytes), l.s)
	ADDQ(U32(codeBytes), l.p)
	ADDQ(Imm(4), l.par)
	ADDQ(Imm(8), l.ends)
	DECQ(l.left)
	JNZ(LabelRef("vector"))
	VZEROUPPER()
	RET()
}

func (l vectors) field(off int) Mem { return Mem{Base: l.par, Disp: off} }

func (l vectors) end() reg.GPVirtual {
	n := GP64()
	MOVQ(Mem{Base: l.ends, Disp: offEnd}, n)
	return n
}

func start(v vec, name, args, doc string) {
	TEXT(name+v.suffix(), NOSPLIT, "func("+args+")")
	Pragma("noescape")
	Doc(name + v.suffix() + " is " + doc + ".")
}

func scores(v vec) {
	start(v, "scores", "t *float32, dots *int32, step, bias *float32, nq int, add bool", "Kernels.Scores")
	dots, step, bias := Load(Param("dots"), GP64()), Load(Param("step"), GP64()), Load(Param("bias"), GP64())
	add := Load(Param("add"), GP8())
	negInf := v.spread(consts.negInf)
	each(func(l vectors) {
		q, top, i := v.spread(l.field(offQSum)), v.regs(), GP64()
		for _, r := range top {
			VMOVAPS(negInf, r)
		}
		block := func(add bool) func([]reg.Register) {
			return func(masks []reg.Register) {
				for j := range v.parts() {
					x := v.reg()
					VCVTDQ2PS(v.at(dots, i, j), x)
					VMULPS(v.at(step, i, j), x, x)
					VFMADD231PS(v.at(bias, i, j), q, x)
					if add {
						VADDPS(v.at(l.s, i, j), x, x)
					}
					if masks != nil {
						v.orElse(masks[j], negInf, x)
					}
					VMOVUPS(x, v.at(l.s, i, j))
					VMAXPS(top[j], x, top[j]) // NaN: the running maximum
				}
			}
		}
		n := l.end()
		TESTB(add, add)
		JZ(LabelRef("set"))
		v.blocks("add", n, i, block(true))
		JMP(LabelRef("max"))
		Label("set")
		v.blocks("set", n, i, block(false))
		Label("max")
		VMOVSS(v.fold(top, VMAXPS), l.field(offMax))
		ADDQ(U32(rowBytes), dots)
	})
}

func findMax(v vec) {
	start(v, "findMax", "t *float32, nq int", "Kernels.FindMax")
	negInf := v.spread(consts.negInf)
	each(func(l vectors) {
		top, i := v.regs(), GP64()
		for _, r := range top {
			VMOVAPS(negInf, r)
		}
		v.blocks("max", l.end(), i, func(masks []reg.Register) {
			for j := range v.parts() {
				x := v.reg()
				VMOVUPS(v.at(l.s, i, j), x)
				if masks != nil {
					v.orElse(masks[j], negInf, x)
					VMOVUPS(x, v.at(l.s, i, j))
				}
				VMAXPS(top[j], x, top[j])
			}
		})
		VMOVSS(v.fold(top, VMAXPS), l.field(offMax))
	})
}

// exponent is 2^(factor·x - top) in place, 0 where that is below 2^-125 and where
// the mask (if any) is not. It returns the mask of what is not 0 at 512 bits.
type exponent struct {
	v                  vec
	factor, top, least reg.VecVirtual
	c                  []Op // c4 … c1, 1
	c5                 Op
}

func newExponent(v vec) *exponent {
	e := &exponent{v: v, c5: consts.c5, c: []Op{consts.c4, consts.c3, consts.c2, consts.c1, consts.one}}
	e.least = v.spread(consts.least)
	if v.wide { // there are registers enough
		e.c5 = v.spread(consts.c5)
		for i := range e.c {
			e.c[i] = v.spread(e.c[i].(Mem))
		}
	}
	return e
}

func (e *exponent) of(x reg.VecVirtual, mask reg.Register) reg.Register {
	n, p := e.v.reg(), e.v.reg()
	VFMSUB213PS(e.top, e.factor, x)
	notLess := Imm(22) // !(x <= least), so that NaN stays
	if e.v.wide {
		k := K()
		VCMPPS(notLess, e.least, x, k)
		if mask != nil {
			KANDW(mask, k, k)
		}
		VRNDSCALEPS(Imm(8), x, n)
		VSUBPS(n, x, x)
		VMOVAPS(e.c5, p)
		for _, c := range e.c {
			VFMADD213PS(c, x, p)
		}
		VSCALEFPS_Z(n, p, k, x)
		return k
	}
	m := YMM()
	VCMPPS(notLess, e.least, x, m)
	if mask != nil {
		VANDPS(mask, m, m)
	}
	VROUNDPS(Imm(8), x, n)
	VSUBPS(n, x, x)
	VMOVAPS(e.c5, p)
	for _, c := range e.c {
		VFMADD213PS(c, x, p)
	}
	VCVTPS2DQ(n, n)
	VPSLLD(Imm(23), n, n)
	VPADDD(n, p, p)
	VANDPS(m, p, x)
	return m
}

func weigh(v vec, name string, by, centred bool) {
	args, doc := "t *float32, nq, n int", "Kernels.Weigh"
	switch {
	case centred:
		args, doc = "t *float32, step, centre *float32, nq, n int", "Kernels.WeighBy with centres"
	case by:
		args, doc = "t *float32, step *float32, nq, n int", "Kernels.WeighBy without centres"
	}
	start(v, name, args, doc)
	var step, centre reg.Register
	if by {
		step = Load(Param("step"), GP64())
	}
	if centred {
		centre = Load(Param("centre"), GP64())
	}
	n := Load(Param("n"), GP64())
	e := newExponent(v)
	each(func(l vectors) {
		e.factor, e.top = v.spread(l.field(offFactor)), v.spread(l.field(offTop))
		sum, top, mid, i := v.regs(), v.regs(), v.regs(), GP64()
		v.zero(sum...)
		if by {
			v.zero(top...)
		}
		if centred {
			v.zero(mid...)
		}
		v.blocks("weights", l.end(), i, func(masks []reg.Register) {
			for j := range v.parts() {
				var mask reg.Register
				if masks != nil {
					mask = masks[j]
				}
				x := v.reg()
				VMOVUPS(v.at(l.s, i, j), x)
				kept := e.of(x, mask)
				VADDPS(x, sum[j], sum[j])
				if centred && mask == nil {
					VFMADD231PS(v.at(centre, i, j), x, mid[j])
				} else if centred {
					c := v.reg()
					VMULPS(v.at(centre, i, j), x, c)
					v.keep(kept, c)
					VADDPS(c, mid[j], mid[j])
				}
				if by {
					VMULPS(v.at(step, i, j), x, x)
					if mask != nil {
						v.keep(kept, x)
					}
					VMAXPS(top[j], x, top[j])
				}
				VMOVUPS(x, v.at(l.s, i, j))
			}
		})
		x := v.reg()
		v.zero(x)
		JMP(LabelRef("fillTest"))
		Label("fill")
		for j := range v.parts() {
			VMOVUPS(x, v.at(l.s, i, j))
		}
		ADDQ(Imm(16), i)
		Label("fillTest")
		CMPQ(i, n)
		JLT(LabelRef("fill"))
		VMOVSS(v.fold(sum, VADDPS), l.field(offSum))
		if by {
			VMOVSS(v.fold(top, VMAXPS), l.field(offLargest))
			if centred {
				VMOVSS(v.fold(mid, VADDPS), l.field(offCentre))
			} else {
				VMOVSS(x.AsX(), l.field(offCentre))
			}
		}
	})
}

func quantise(v vec) {
	start(v, "quantise", "t *float32, nq, n int", "Kernels.Quantise")
	n := Load(Param("n"), GP64())
	half, zero, order := v.spread(consts.half), v.reg(), v.reg()
	v.zero(zero)
	many := 32 // tokens that are packed at once
	if v.wide {
		many = 64
		VMOVDQU32(consts.order512, order)
	} else {
		VMOVDQU(consts.order256, order)
	}
	each(func(l vectors) {
		scale, sum, i, left := v.reg(), v.reg(), GP64(), GP64()
		inverse(l, scale)
		v.zero(sum)
		XORQ(i, i)
		load := func(r reg.VecVirtual, j int) {
			VMULPS(v.at(l.s, i, j), scale, r)
			VADDPS(half, r, r)
			VCVTTPS2DQ(r, r) // NaN and infinities: below all, which packing makes 0
		}
		codes := Mem{Base: l.p, Index: i, Scale: 1}
		JMP(LabelRef("manyTest"))
		Label("many")
		x := []reg.VecVirtual{v.reg(), v.reg(), v.reg(), v.reg()}
		for j, r := range x {
			load(r, j)
		}
		VPACKUSDW(x[1], x[0], x[0])
		VPACKUSDW(x[3], x[2], x[2])
		VPACKUSWB(x[2], x[0], x[0]) // 4 bytes of every register in each 16
		VPERMD(x[0], order, x[0])
		if v.wide {
			VMOVDQU32(x[0], codes)
		} else {
			VMOVDQU(x[0], codes)
		}
		VPSADBW(zero, x[0], x[0])
		VPADDQ(x[0], sum, sum)
		ADDQ(Imm(uint64(many)), i)
		Label("manyTest")
		MOVQ(n, left)
		SUBQ(i, left)
		CMPQ(left, Imm(uint64(many)))
		JGE(LabelRef("many"))
		JMP(LabelRef("test"))

		Label("block")
		b := v.regs()
		for j, r := range b {
			load(r, j)
		}
		c := XMM()
		if v.wide {
			VEXTRACTI64X4(Imm(1), b[0], x[1].AsY())
			VPACKUSDW(x[1].AsY(), b[0].AsY(), b[0].AsY())
		} else {
			VPACKUSDW(b[1], b[0], b[0])
		}
		VPERMQ(Imm(0xd8), b[0].AsY(), b[0].AsY())
		VEXTRACTI128(Imm(1), b[0].AsY(), c)
		VPACKUSWB(c, b[0].AsX(), c)
		VMOVDQU(c, codes)
		VPSADBW(zero.AsX(), c, c)
		if v.wide {
			VPADDQ(c.AsZ(), sum, sum) // the upper lanes of c are 0
		} else {
			VPADDQ(c.AsY(), sum, sum)
		}
		ADDQ(Imm(16), i)
		Label("test")
		CMPQ(i, n)
		JLT(LabelRef("block"))
		total(v, sum)
		VMOVD(sum.AsX(), l.field(offPSum))
	})
}

// inverse is what weights are multiplied by: 255/largest, 0 if that is tiny.
func inverse(l vectors, scale reg.VecVirtual) {
	inv, m, t := XMM(), XMM(), XMM()
	VMOVSS(l.field(offLargest), inv)
	VMOVSS(consts.tiny, m)
	VCMPSS(Imm(30), m, inv, m) // largest > tiny
	VMOVSS(consts.scale, t)
	VDIVSS(inv, t, inv)
	VANDPS(m, inv, inv)
	VBROADCASTSS(inv, scale)
}

// total adds up the 8-byte lanes.
func total(v vec, sum reg.VecVirtual) {
	t := YMM()
	if v.wide {
		VEXTRACTI64X4(Imm(1), sum, t)
		VPADDQ(t, sum.AsY(), sum.AsY())
	}
	VEXTRACTI128(Imm(1), sum.AsY(), t.AsX())
	VPADDQ(t.AsX(), sum.AsX(), sum.AsX())
	VPSHUFD(Imm(0x4e), sum.AsX(), t.AsX())
	VPADDQ(t.AsX(), sum.AsX(), sum.AsX())
}
