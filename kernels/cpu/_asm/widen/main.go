// Command widen generates the assembly of package kernels/cpu/widen.
package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

func main() {
	ConstraintExpr("!purego")
	shifts := valueShifts()
	for _, s := range lib.ISAs {
		for planes := 1; planes <= 2; planes++ {
			keys(s, planes)
			values(s, planes, shifts)
		}
		for bits := 2; bits <= 4; bits++ {
			levelKeys(s, bits)
			levelValues(s, bits, shifts)
		}
		turn(s)
	}
	restore()
	lib.Fetch()
	Generate()
}

func integer(name string) reg.GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}

// name is a function's, by the bits of its codes.
func name(what string, planes int) string { return what + string(rune('0'+2*planes)) }

// keyShifts are how far right lane c of a vector of channels from first on finds
// its code in a word of K: channel 4i + b is at bits 8b + 2i.
func keyShifts(first, lanes int) Mem {
	words := make([]uint32, lanes)
	for j := range words {
		c := first + j
		words[j] = uint32(8*(c%4) + 2*(c/4))
	}
	return lib.Words(words...)
}

// keys generates the widening of up to eight tokens of K whose words lie side by
// side: 16 channels at a time, of which scale and min stay in registers.
func keys(s lib.ISA, planes int) {
	s.Func(name("keys", planes), "(dst *float32, stride int, top, low *byte, scale, min *byte, channels, n int)",
		"widens n >= 1 tokens of K to rows of channels, a multiple of 8, stride bytes apart. Their words begin at top and low, words of 16 channels 32 bytes apart; scale and min are float16s.")
	dst, stride, top := integer("dst"), integer("stride"), integer("top")
	var low reg.GPVirtual
	if planes == 2 {
		low = integer("low")
	}
	scale, least, channels, n := integer("scale"), integer("min"), integer("channels"), integer("n")
	three := s.Load(lib.Words(3))
	runs := 16 / s.Lanes()
	shifts := make([]reg.VecVirtual, runs)
	for i := range shifts {
		shifts[i] = s.Load(keyShifts(i*s.Lanes(), min(16, s.Lanes())))
	}
	words, rest, done := lib.NewLabel("words"), lib.NewLabel("rest"), lib.NewLabel("done")
	word := func(s lib.ISA, shifts []reg.VecVirtual, three reg.VecVirtual) {
		a, m := make([]reg.VecVirtual, len(shifts)), make([]reg.VecVirtual, len(shifts))
		for i := range shifts {
			a[i], m[i] = s.Vec(), s.Vec()
			VCVTPH2PS(Mem{Base: scale, Disp: i * s.Bytes / 2}, a[i])
			VCVTPH2PS(Mem{Base: least, Disp: i * s.Bytes / 2}, m[i])
		}
		at, to, left := GP64(), GP64(), GP64()
		MOVQ(dst, to)
		MOVQ(n, left)
		XORQ(at, at)
		tokens := lib.NewLabel("tokens")
		Label(tokens)
		w, w2 := s.Vec(), s.Vec()
		VPBROADCASTD(Mem{Base: top, Index: at, Scale: 4}, w)
		if planes == 2 {
			VPBROADCASTD(Mem{Base: low, Index: at, Scale: 4}, w2)
		}
		for i := range shifts {
			x := s.Vec()
			VPSRLVD(shifts[i], w, x)
			and(s, three, x)
			if planes == 2 {
				y := s.Vec()
				VPSRLVD(shifts[i], w2, y)
				and(s, three, y)
				join(s, x, y)
			}
			affine(x, a[i], m[i])
			VMOVUPS(x, Mem{Base: to, Disp: i * s.Bytes})
		}
		ADDQ(stride, to)
		INCQ(at)
		CMPQ(at, left)
		JL(LabelRef(tokens))
	}
	Label(words)
	CMPQ(channels, Imm(16))
	JL(LabelRef(rest))
	word(s, shifts, three)
	ADDQ(Imm(64), dst)
	ADDQ(Imm(32), top)
	if planes == 2 {
		ADDQ(Imm(32), low)
	}
	ADDQ(Imm(32), scale)
	ADDQ(Imm(32), least)
	SUBQ(Imm(16), channels)
	JMP(LabelRef(words))
	Label(rest)
	TESTQ(channels, channels)
	JZ(LabelRef(done))
	word(lib.AVX2, lower(shifts[:1]), lower([]reg.VecVirtual{three})[0])
	Label(done)
	lib.Finish()
}

// lower are vectors' lower halves, or the whole of 256 bits.
func lower(v []reg.VecVirtual) []reg.VecVirtual {
	out := make([]reg.VecVirtual, len(v))
	for i := range v {
		out[i] = v[i].AsY().(reg.VecVirtual)
	}
	return out
}

func and(s lib.ISA, mask, x reg.VecVirtual) {
	if s.Wide() {
		VPANDD(mask, x, x)
		return
	}
	VPAND(mask, x, x)
}

// join makes x the 4-bit code of an upper plane's x and a lower one's y.
func join(s lib.ISA, x, y reg.VecVirtual) {
	VPSLLD(Imm(2), x, x)
	if s.Wide() {
		VPORD(y, x, x)
		return
	}
	VPOR(y, x, x)
}

// affine turns codes into values, rounding twice as package quant's do.
func affine(x, scale, least reg.VecVirtual) {
	VCVTDQ2PS(x, x)
	VMULPS(scale, x, x)
	VADDPS(least, x, x)
}

// valueShifts are, at 128·b + 32·i, how far right chunk i of eight channels of
// token b finds its code in a word of V: bits 8b + 2i.
func valueShifts() Mem {
	m := GLOBL("valueShifts", attr.RODATA|attr.NOPTR)
	for j := range 4 * 4 * 8 {
		DATA(4*j, U32(8*(j/32)+2*(j/8%4)))
	}
	return m
}

// values generates the widening of one token of V, which is byte b of its words: a
// word has four of its channels, eight apart.
func values(s lib.ISA, planes int, table Mem) {
	s.Func(name("values", planes), "(dst *float32, top, low *byte, b int, scale, min *byte, channels int, wide int)",
		"widens one token of V, byte b of its words, to a row of channels, a multiple of 8. scale and min are float16s, one for every 32 channels, or for every 64 where wide is 1.")
	dst, top := integer("dst"), integer("top")
	var low reg.GPVirtual
	if planes == 2 {
		low = integer("low")
	}
	shifts, b := GP64(), integer("b")
	SHLQ(U8(7), b)
	LEAQ(table, shifts)
	ADDQ(b, shifts)
	scale, least, channels := integer("scale"), integer("min"), integer("channels")
	Load(Param("wide"), reg.RCX)
	group, part := GP64(), GP64()
	XORQ(group, group)
	three := s.Load(lib.Words(3))
	v := valueRun{ISA: s, planes: planes, dst: dst, shifts: shifts, three: three}
	groups, rest, done := lib.NewLabel("groups"), lib.NewLabel("rest"), lib.NewLabel("done")
	begin := func() {
		MOVQ(group, part)
		SHRQ(reg.CL, part)
		v.load(top, low, Mem{Base: scale, Index: part, Scale: 2}, Mem{Base: least, Index: part, Scale: 2})
	}
	Label(groups)
	CMPQ(channels, Imm(32))
	JL(LabelRef(rest))
	begin()
	for i := 0; i < 4; i += s.Lanes() / 8 {
		v.chunk(s, i)
	}
	ADDQ(U32(128), dst)
	ADDQ(Imm(32), top)
	if planes == 2 {
		ADDQ(Imm(32), low)
	}
	INCQ(group)
	SUBQ(Imm(32), channels)
	JMP(LabelRef(groups))
	Label(rest)
	TESTQ(channels, channels)
	JZ(LabelRef(done))
	begin()
	for i := range 3 {
		v.chunk(lib.AVX2, i)
		if i < 2 {
			CMPQ(channels, Imm(uint64(8*(i+1))))
			JLE(LabelRef(done))
		}
	}
	Label(done)
	lib.Finish()
}

// valueRun is the widening of 32 channels of a token.
type valueRun struct {
	lib.ISA
	planes          int
	dst, shifts     reg.Register
	three           reg.VecVirtual
	top, low        reg.VecVirtual
	scale, least, t reg.VecVirtual // t: the values of the four codes of 2 bits, in every four lanes
}

// load loads the words and the parameters.
func (v *valueRun) load(top, low reg.Register, scale, least Mem) {
	half := func(m Mem) reg.VecVirtual {
		x := v.Vec()
		VPBROADCASTW(m, v.Half(x))
		VCVTPH2PS(v.Half(x), x)
		return x
	}
	v.top, v.low = v.Vec(), v.Vec()
	eight(v.ISA, Mem{Base: top}, v.top)
	if v.planes == 2 {
		eight(v.ISA, Mem{Base: low}, v.low)
	}
	v.scale, v.least = half(scale), half(least)
	if v.planes == 1 {
		v.t = v.ISA.Load(lib.Floats(0, 1, 2, 3))
		VMULPS(v.scale, v.t, v.t)
		VADDPS(v.least, v.t, v.t)
	}
}

// chunk widens the channels of chunk i, and of the next one where s is wide.
func (v *valueRun) chunk(s lib.ISA, i int) {
	narrow := func(x reg.VecVirtual) reg.VecVirtual {
		if s.Wide() == v.Wide() {
			return x
		}
		return x.AsY().(reg.VecVirtual)
	}
	shift := Mem{Base: v.shifts, Disp: 32 * i}
	x := s.Vec()
	VPSRLVD(shift, narrow(v.top), x)
	if v.planes == 1 { // two bits choose one of four lanes
		VPERMILPS(x, narrow(v.t), x)
	} else {
		y := s.Vec()
		VPSRLVD(shift, narrow(v.low), y)
		and(s, narrow(v.three), x)
		and(s, narrow(v.three), y)
		join(s, x, y)
		affine(x, narrow(v.scale), narrow(v.least))
	}
	VMOVUPS(x, Mem{Base: v.dst, Disp: 32 * i})
}
