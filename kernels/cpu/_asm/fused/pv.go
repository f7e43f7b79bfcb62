package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

// pv generates the weighted sum of one group's channels over a page of V. Lanes are
// channels; the scales are in the weights already.
func (g *gen) pv() {
	name := g.name("pv")
	rows.Begin(name, name+" is pv for that many vectors of weights.",
		"func(acc *float32, width int, fold, sums *float32, codes *byte, stride int, next *byte)")
	acc, width := rows.Arg("acc"), rows.Arg("width")
	SHLQ(Imm(2), width)
	fold0, sums, codes, stride, next := rows.Arg("fold"), rows.Arg("sums"), rows.Arg("codes"), rows.Arg("stride"), rows.Arg("next")
	row := GP64()
	MOVQ(U64(4*tokens), row)
	out, w := rows.NewStrided(acc, width, g.nq), rows.NewStrided(fold0, row, g.nq)
	at, left := GP64(), GP64()
	if g.Wide && g.bits == 4 {
		g.shifts()
	}
	vecs := group / g.Lanes() // of a group's channels, of which some at a time
	step := vecs
	if !g.Wide {
		step = 8 / g.nq
	}
	for first := 0; first < vecs; first += step {
		for i := range g.nq * step {
			g.Zero(g.High(i))
		}
		w.Set(fold0)
		MOVQ(codes, at)
		MOVQ(U64(tokens), left)
		label := fmt.Sprintf("tokens%d", first)
		Label(label)
		if first == 0 {
			PREFETCHT0(Mem{Base: next})
			ADDQ(Imm(uint64(8*g.bits)), next)
		}
		g.token(w, at, first, step)
		w.Advance(4)
		ADDQ(stride, at)
		DECQ(left)
		JNZ(LabelRef(label))
		for i := range g.nq {
			VBROADCASTSS(Mem{Base: sums, Disp: 4 * i}, g.Low(0))
			for v := range step {
				a := g.High(i*step + v)
				if m := g.nibble(first + v); g.bits == 4 && m > 0 {
					VBROADCASTSS(g.shrink.Offset(4*m), g.Low(1))
					VMULPS(g.Low(1), a, a)
				}
				mem := out.At(i, 4*(first+v)*g.Lanes())
				VADDPS(g.Low(0), a, a)
				VADDPS(mem, a, a)
				rows.StoreF32(a, nil, mem)
			}
		}
	}
	rows.End()
}

// nibble is which mask finds vector v of a group: a nibble is eight channels.
func (g *gen) nibble(v int) int { return v * g.Lanes() / 16 }

// shifts leaves 0 in the lower eight lanes of Z12 and 4 in the upper ones: the
// lower lanes keep the even nibbles, the upper get the odd.
func (g *gen) shifts() {
	four := GP32()
	MOVL(U32(4), four)
	VPXORD(reg.Z12, reg.Z12, reg.Z12)
	VPBROADCASTD(four, reg.Y13)
	VINSERTI64X4(U8(1), reg.Y13, reg.Z12, reg.Z12)
}

// token adds one token to vectors [first, first+n) of the group. Its codes stream
// by; the weights are held in registers, or where there are more of them the codes
// are.
func (g *gen) token(w *rows.Strided, at reg.GPVirtual, first, n int) {
	code := func(v int) reg.VecPhysical { return g.Low(4 + v) }
	if g.nq < n {
		code = func(v int) reg.VecPhysical { return g.Low(4 + v%2) }
		for i := range g.nq {
			VBROADCASTSS(w.At(i, 0), g.Low(i))
		}
	}
	load := g.loader(at, first)
	for v := range n {
		load(v, code(v))
		if g.nq < n {
			for i := range g.nq {
				VFMADD231PS(g.Low(i), code(v), g.High(i*n+v))
			}
		}
	}
	if g.nq < n {
		return
	}
	for i := range g.nq {
		r := g.Low(i % 2)
		VBROADCASTSS(w.At(i, 0), r)
		for v := range n {
			VFMADD231PS(r, code(v), g.High(i*n+v))
		}
	}
}

// loader loads the words of one token and returns what makes vector v of the
// group's channels from first on of them.
func (g *gen) loader(at reg.GPVirtual, first int) func(v int, to reg.VecPhysical) {
	if g.bits == 8 {
		return func(v int, to reg.VecPhysical) {
			VPMOVSXBD(Mem{Base: at, Disp: (first + v) * g.Lanes()}, to)
			VCVTDQ2PS(to, to)
		}
	}
	if g.Wide {
		word := g.Low(10)
		VBROADCASTI64X4(Mem{Base: at}, word)
		VPSRLVD(reg.Z12, word, word)
		return func(v int, to reg.VecPhysical) {
			g.and(word, v, to)
			VCVTDQ2PS(to, to)
		}
	}
	even, odd := g.Low(6), g.Low(7)
	VMOVDQU(Mem{Base: at}, even)
	VPSRLD(Imm(4), even, odd)
	return func(v int, to reg.VecPhysical) {
		word := even
		if (first+v)%2 == 1 {
			word = odd
		}
		g.and(word, g.nibble(first+v), to)
		VCVTDQ2PS(to, to)
	}
}
