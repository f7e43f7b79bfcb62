package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

// choice chooses levels by codes of so many bits.
type choice struct {
	lib.ISA
	bits        int
	three, mask reg.VecVirtual // 3, and what of a code of the high plane is the channel's
	table       [2]reg.VecVirtual
	extra       reg.VecVirtual // how much farther right the high plane's code is (3 bits)
}

// narrow is the choice for vectors of 256 bits: of the same registers.
func (c choice) narrow() choice {
	if !c.Wide() {
		return c
	}
	y := func(x reg.VecVirtual) reg.VecVirtual {
		if x == nil {
			return nil
		}
		return x.AsY().(reg.VecVirtual)
	}
	n := choice{ISA: lib.AVX2, bits: c.bits, three: y(c.three), mask: y(c.mask), extra: y(c.extra)}
	n.table[0] = y(c.table[0])
	if c.bits == 4 {
		n.table[1] = lib.AVX2.Vec()
		VEXTRACTF64X4(U8(1), c.table[0], n.table[1])
	}
	return n
}

// newChoice loads the constants; third is the register of 3 bits' extra shift.
func newChoice(s lib.ISA, bits int, third reg.Register) choice {
	c := choice{ISA: s, bits: bits}
	if bits == 2 {
		return c
	}
	c.three = s.Load(lib.Words(3))
	c.mask = c.three
	if bits == 3 {
		c.mask = s.Load(lib.Words(1))
		c.extra = s.Vec()
		x := XMM()
		MOVQ(third, x)
		VPBROADCASTD(x, c.extra)
	}
	return c
}

// loadTable takes the levels, 16 floats: repeated where there are fewer.
func (c *choice) loadTable(levels reg.Register) {
	c.table[0] = c.ISA.Load(Mem{Base: levels})
	if c.bits == 4 && !c.Wide() {
		c.table[1] = c.ISA.Load(Mem{Base: levels, Disp: 32})
	}
}

// stretch makes the table that of values: level·scale + zero.
func (c *choice) stretch(scale, zero reg.VecVirtual) {
	for _, t := range c.table {
		if t != nil {
			VMULPS(scale, t, t)
			VADDPS(zero, t, t)
		}
	}
}

// choose makes a new register of levels: of codes at shift in the words low and high.
func (c *choice) choose(low, high reg.VecVirtual, shift Op) reg.VecVirtual {
	x := c.Vec()
	VPSRLVD(shift, low, x)
	if c.bits == 2 { // two bits choose one of four lanes
		VPERMILPS(x, c.table[0], x)
		return x
	}
	y := c.Vec()
	VPSRLVD(shift, high, y)
	if c.extra != nil {
		VPSRLVD(c.extra, y, y)
	}
	and(c.ISA, c.three, x)
	and(c.ISA, c.mask, y)
	VPSLLD(Imm(2), y, y)
	if c.Wide() {
		VPORD(y, x, x)
		VPERMPS(c.table[0], x, x)
		return x
	}
	VPOR(y, x, x)
	if c.bits == 3 {
		VPERMPS(c.table[0], x, x)
		return x
	}
	z := c.Vec()
	VPSLLD(Imm(28), x, y) // bit 3 is the sign
	VPERMPS(c.table[1], x, z)
	VPERMPS(c.table[0], x, x)
	VBLENDVPS(y, z, x, x)
	return x
}

// levelKeys is keys with levels in place of codes, and parameters that are float32.
func levelKeys(s lib.ISA, bits int) {
	s.Func("levelKeys"+string(rune('0'+bits)), "(dst *float32, stride int, low, high *byte, third int, scale, zero, levels *float32, channels, n int)",
		"widens n >= 1 tokens of K to rows of channels, a multiple of 8, stride bytes apart. Their words begin at low and high, words of 16 channels 32 bytes apart; of 3 bits the third is third places farther right. levels are 16 numbers.")
	dst, stride, low := integer("dst"), integer("stride"), integer("low")
	var high, third reg.GPVirtual
	if bits > 2 {
		high = integer("high")
	}
	if bits == 3 {
		third = integer("third")
	}
	c := newChoice(s, bits, third)
	c.loadTable(integer("levels"))
	scale, zero, channels, n := integer("scale"), integer("zero"), integer("channels"), integer("n")
	shifts := make([]reg.VecVirtual, 16/s.Lanes())
	for i := range shifts {
		shifts[i] = s.Load(keyShifts(i*s.Lanes(), min(16, s.Lanes())))
	}
	words, rest, done := lib.NewLabel("words"), lib.NewLabel("rest"), lib.NewLabel("done")
	word := func(c choice, shifts []reg.VecVirtual) {
		a, m := make([]reg.VecVirtual, len(shifts)), make([]reg.VecVirtual, len(shifts))
		for i := range shifts {
			a[i], m[i] = c.ISA.Load(Mem{Base: scale, Disp: i * c.Bytes}), c.ISA.Load(Mem{Base: zero, Disp: i * c.Bytes})
		}
		at, to := GP64(), GP64()
		MOVQ(dst, to)
		XORQ(at, at)
		tokens := lib.NewLabel("tokens")
		Label(tokens)
		w, w2 := c.Vec(), c.Vec()
		VPBROADCASTD(Mem{Base: low, Index: at, Scale: 4}, w)
		if bits > 2 {
			VPBROADCASTD(Mem{Base: high, Index: at, Scale: 4}, w2)
		}
		for i := range shifts {
			x := c.choose(w, w2, shifts[i])
			VMULPS(a[i], x, x)
			VADDPS(m[i], x, x)
			VMOVUPS(x, Mem{Base: to, Disp: i * c.Bytes})
		}
		ADDQ(stride, to)
		INCQ(at)
		CMPQ(at, n)
		JL(LabelRef(tokens))
	}
	Label(words)
	CMPQ(channels, Imm(16))
	JL(LabelRef(rest))
	word(c, shifts)
	ADDQ(Imm(64), dst)
	ADDQ(Imm(32), low)
	if bits > 2 {
		ADDQ(Imm(32), high)
	}
	ADDQ(Imm(64), scale)
	ADDQ(Imm(64), zero)
	SUBQ(Imm(16), channels)
	JMP(LabelRef(words))
	Label(rest)
	TESTQ(channels, channels)
	JZ(LabelRef(done))
	word(c.narrow(), lower(shifts[:1]))
	Label(done)
	lib.Finish()
}

// levelValues is values with levels in place of codes; scale and zero are the token's.
func levelValues(s lib.ISA, bits int, table Mem) {
	s.Func("levelValues"+string(rune('0'+bits)), "(dst *float32, low, high *byte, third int, b int, scale, zero *byte, levels *float32, channels int)",
		"widens one token of V, byte b of its words, to a row of channels, a multiple of 8; of 3 bits the third is third places farther right. scale and zero are float16s, levels 16 numbers.")
	dst, low := integer("dst"), integer("low")
	var high, third reg.GPVirtual
	if bits > 2 {
		high = integer("high")
	}
	if bits == 3 {
		third = integer("third")
	}
	shifts, b := GP64(), integer("b")
	SHLQ(U8(7), b)
	LEAQ(table, shifts)
	ADDQ(b, shifts)
	c := newChoice(s, bits, third)
	c.loadTable(integer("levels"))
	half := func(p reg.Register) reg.VecVirtual {
		x := s.Vec()
		VPBROADCASTW(Mem{Base: p}, s.Half(x))
		VCVTPH2PS(s.Half(x), x)
		return x
	}
	c.stretch(half(integer("scale")), half(integer("zero")))
	narrow := c.narrow()
	channels := integer("channels")
	var w, w2 reg.VecVirtual
	begin := func() {
		w, w2 = s.Vec(), s.Vec()
		eight(s, Mem{Base: low}, w)
		if bits > 2 {
			eight(s, Mem{Base: high}, w2)
		}
	}
	groups, rest, done := lib.NewLabel("groups"), lib.NewLabel("rest"), lib.NewLabel("done")
	Label(groups)
	CMPQ(channels, Imm(32))
	JL(LabelRef(rest))
	begin()
	for i := 0; i < 4; i += s.Lanes() / 8 {
		VMOVUPS(c.choose(w, w2, Mem{Base: shifts, Disp: 32 * i}), Mem{Base: dst, Disp: 32 * i})
	}
	ADDQ(U32(128), dst)
	ADDQ(Imm(32), low)
	if bits > 2 {
		ADDQ(Imm(32), high)
	}
	SUBQ(Imm(32), channels)
	JMP(LabelRef(groups))
	Label(rest)
	TESTQ(channels, channels)
	JZ(LabelRef(done))
	begin()
	for i := range 3 {
		VMOVUPS(narrow.choose(w.AsY().(reg.VecVirtual), w2.AsY().(reg.VecVirtual), Mem{Base: shifts, Disp: 32 * i}), Mem{Base: dst, Disp: 32 * i})
		if i < 2 {
			CMPQ(channels, Imm(uint64(8*(i+1))))
			JLE(LabelRef(done))
		}
	}
	Label(done)
	lib.Finish()
}

// eight loads eight words, twice into a wide vector.
func eight(s lib.ISA, m Mem, x reg.VecVirtual) {
	if s.Wide() {
		VBROADCASTI64X4(m, x)
		return
	}
	VMOVDQU(m, x)
}

// turn generates the turning of rows by angles of their own.
func turn(s lib.ISA) {
	s.Func("turn", "(x *float32, d, n int, cos, sin *float32, pairs int)",
		"turns channels i and pairs+i of n >= 1 rows of d channels by the rows' angles, pairs cosines and sines each.")
	x, d, n, cos, sin, pairs := integer("x"), integer("d"), integer("n"), integer("cos"), integer("sin"), integer("pairs")
	rows := lib.NewLabel("rows")
	Label(rows)
	other, left := GP64(), GP64()
	LEAQ(Mem{Base: x, Index: pairs, Scale: 4}, other)
	MOVQ(pairs, left)
	s.Sweep(left, 1, func(st lib.Step) {
		a, b, c, e, p, q := s.Vec(), s.Vec(), s.Vec(), s.Vec(), s.Vec(), s.Vec()
		st.Load(st.At(x, 4), a)
		st.Load(st.At(other, 4), b)
		st.Load(st.At(cos, 4), c)
		st.Load(st.At(sin, 4), e)
		VMULPS(c, a, p)
		VMULPS(c, b, q)
		VFNMADD231PS(e, b, p)
		VFMADD231PS(e, a, q)
		st.Store(p, st.At(x, 4))
		st.Store(q, st.At(other, 4))
	})
	LEAQ(Mem{Base: x, Index: d, Scale: 4}, x)
	LEAQ(Mem{Base: cos, Index: pairs, Scale: 4}, cos)
	LEAQ(Mem{Base: sin, Index: pairs, Scale: 4}, sin)
	DECQ(n)
	JNZ(LabelRef(rows))
	lib.Finish()
}

// restore generates the putting of outliers in their places, slots of them for every
// run of d places.
func restore() {
	s := lib.AVX2
	s.Func("restore", "(dst *float32, list *byte, slots, runs, first, d int)",
		"puts the values of runs·slots outliers, a place and a float16 each, into dst, where place first is: of each run those that lie in its d places.")
	dst, list, slots, runs, first, d := integer("dst"), integer("list"), integer("slots"), integer("runs"), integer("first"), integer("d")
	outer, inner, skip := lib.NewLabel("runs"), lib.NewLabel("slots"), lib.NewLabel("skip")
	left, word, place, x := GP64(), GP64(), GP64(), XMM()
	Label(outer)
	MOVQ(slots, left)
	Label(inner)
	MOVL(Mem{Base: list}, word.As32())
	MOVWLZX(word.As16(), place.As32())
	SUBQ(first, place)
	CMPQ(place, d)
	JCC(LabelRef(skip)) // unsigned: not below
	SHRL(U8(16), word.As32())
	VMOVD(word.As32(), x)
	VCVTPH2PS(x, x)
	VMOVSS(x, Mem{Base: dst, Index: place, Scale: 4})
	Label(skip)
	ADDQ(Imm(4), list)
	DECQ(left)
	JNZ(LabelRef(inner))
	ADDQ(d, first)
	LEAQ(Mem{Base: dst, Index: d, Scale: 4}, dst)
	DECQ(runs)
	JNZ(LabelRef(outer))
	lib.Finish()
}
