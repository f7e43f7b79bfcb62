package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vec is a width of registers. A block of 16 tokens is one register of 512 bits
// or two of 256.
type vec struct{ wide bool }

func (v vec) suffix() string {
	if v.wide {
		return "AVX512"
	}
	return "AVX2"
}

// parts is the number of registers of a block, bytes the size of one.
func (v vec) parts() int {
	if v.wide {
		return 1
	}
	return 2
}

func (v vec) bytes() int { return 64 / v.parts() }

func (v vec) reg() reg.VecVirtual {
	if v.wide {
		return ZMM()
	}
	return YMM()
}

func (v vec) regs() []reg.VecVirtual {
	var r []reg.VecVirtual
	for range v.parts() {
		r = append(r, v.reg())
	}
	return r
}

func (v vec) zero(r ...reg.VecVirtual) {
	for _, x := range r {
		if v.wide {
			VPXORD(x, x, x)
		} else {
			VPXOR(x, x, x)
		}
	}
}

// spread broadcasts the 4 bytes of m.
func (v vec) spread(m Mem) reg.VecVirtual {
	r := v.reg()
	VBROADCASTSS(m, r)
	return r
}

// seen are the masks of a last block, of which rem tokens are seen.
func (v vec) seen(rem reg.GPVirtual) []reg.Register {
	t := v.reg()
	VMOVD(rem.As32(), t.AsX())
	VPBROADCASTD(t.AsX(), t)
	var masks []reg.Register
	for i := range v.parts() {
		iota := consts.iota.Offset(v.bytes() * i)
		if v.wide {
			k := K()
			VPCMPGTD(iota, t, k)
			masks = append(masks, k)
			continue
		}
		m := YMM()
		VPCMPGTD(iota, t, m)
		masks = append(masks, m)
	}
	return masks
}

// keep zeroes the lanes of x that are not in the mask.
func (v vec) keep(mask reg.Register, x reg.VecVirtual) {
	if v.wide {
		VMOVAPS_Z(x, mask, x)
	} else {
		VANDPS(mask, x, x)
	}
}

// orElse takes the lanes of y where x is not in the mask.
func (v vec) orElse(mask reg.Register, y, x reg.VecVirtual) {
	if v.wide {
		VBLENDMPS(x, y, mask, x)
	} else {
		VBLENDVPS(mask, x, y, x)
	}
}

// fold folds a block's registers into the lowest lane of the first, in halves.
func (v vec) fold(r []reg.VecVirtual, op func(...Op)) reg.VecVirtual {
	y := r[0].AsY().(reg.VecVirtual)
	t := YMM()
	if v.wide {
		VEXTRACTF64X4(Imm(1), r[0], t)
		op(t, y, y)
	} else {
		op(r[1], y, y)
	}
	x := y.AsX().(reg.VecVirtual)
	VEXTRACTF128(Imm(1), y, t.AsX())
	op(t.AsX(), x, x)
	VPSHUFD(Imm(0x4e), x, t.AsX())
	op(t.AsX(), x, x)
	VPSHUFD(Imm(0xb1), x, t.AsX())
	op(t.AsX(), x, x)
	return x
}

// blocks runs body over the blocks of [0, n), the last one with its masks if it is
// not whole. It leaves the index at the end, in whole blocks.
func (v vec) blocks(name string, n, i reg.GPVirtual, body func(masks []reg.Register)) {
	whole := GP64()
	MOVQ(n, whole)
	ANDQ(I8(-16), whole)
	XORQ(i, i)
	TESTQ(whole, whole)
	JZ(LabelRef(name + "Rest"))
	Label(name + "Block")
	body(nil)
	ADDQ(Imm(16), i)
	CMPQ(i, whole)
	JLT(LabelRef(name + "Block"))
	Label(name + "Rest")
	rem := GP64()
	MOVQ(n, rem)
	SUBQ(i, rem)
	JZ(LabelRef(name + "Done"))
	body(v.seen(rem))
	ADDQ(Imm(16), i)
	Label(name + "Done")
}

// at is part j of the block at index i of an array of 4-byte elements.
func (v vec) at(base, i reg.Register, j int) Mem {
	return Mem{Base: base, Index: i, Scale: 4, Disp: v.bytes() * j}
}

// consts are the data sections.
var consts = struct {
	iota                                  Mem
	negInf, least, half, scale, tiny, one Mem
	c1, c2, c3, c4, c5                    Mem
	order256, order512                    Mem
}{
	iota:   section("lane", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
	negInf: section("negInf", math.Float32bits(float32(math.Inf(-1)))),
	least:  float("least", -125),
	half:   float("half", 0.5),
	scale:  float("levels", 255),
	tiny:   float("tiny", 1e-30),
	one:    float("one", 1),
	c1:     float("c1", 0.693142830608352),
	c2:     float("c2", 0.2402235065068627),
	c3:     float("c3", 0.05557400473320265),
	c4:     float("c4", 0.00966628252468191),
	c5:     float("c5", 0.0011125507682639023),

	order256: section("order256", 0, 4, 1, 5, 2, 6, 3, 7),
	order512: section("order512", 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
}

func float(name string, x float32) Mem { return section(name, math.Float32bits(x)) }

// section is a data section; a single value is repeated over a register.
func section(name string, x ...uint32) Mem {
	m := GLOBL(name, 8|16) // RODATA|NOPTR
	for i := range 16 {
		DATA(4*i, U32(x[i%len(x)]))
	}
	return m
}
