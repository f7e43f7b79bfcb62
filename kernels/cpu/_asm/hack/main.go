// Command hack generates the assembly of package kernels/cpu/hack.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

func main() {
	ConstraintExpr("!purego")
	for _, v := range []rows.Vec{{}, {Wide: true}} {
		for _, nq := range []int{4, 2, 1} {
			qk(v, nq)
			pv(v, nq)
		}
	}
	float64s()
	widens()
	split()
	narrow()
	fold()
	fetch()
	coding := constants()
	coding.quantise(rows.Vec{})
	coding.quantise(rows.Vec{Wide: true})
	Generate()
}

// sums is what QK and PV share: accumulators of integer products, from the top
// register down, and how they end up in memory.
type sums struct {
	rows.Vec
	mask, temp reg.VecPhysical
	x          reg.VecPhysical // free for operands; overwritten by store
	shift      reg.VecPhysical
}

func newSums(v rows.Vec, shift reg.Register) *sums {
	s := &sums{Vec: v, mask: v.Low(0), x: v.Low(1), temp: v.Low(2), shift: reg.X3}
	VMOVQ(shift, s.shift)
	threes := GP64()
	MOVL(U32(0x03030303), threes.As32())
	VMOVD(threes.As32(), reg.X0)
	VPBROADCASTD(reg.X0, s.mask)
	return s
}

// code leaves the bit pairs at the bottom of word's bytes in to, after having
// moved the next ones there unless it is the first time.
func (s *sums) code(word, to reg.VecPhysical, first bool) {
	if !first {
		VPSRLD(Imm(2), word, word)
	}
	if s.Wide {
		VPANDD(s.mask, word, to)
		return
	}
	VPAND(s.mask, word, to)
}

// add adds the products of unsigned bytes and codes.
func (s *sums) add(x, code, acc reg.VecPhysical) {
	if s.Wide {
		VPDPBUSD(code, x, acc)
		return
	}
	VPMADDUBSW(code, x, s.temp)
	VPADDW(s.temp, acc, acc)
}

// finish turns the accumulators into int32s that fit where they go.
func (s *sums) finish(n int) {
	if !s.Wide { // add the pairs of int16s
		VPCMPEQW(s.x, s.x, s.x)
		VPSRLW(Imm(15), s.x, s.x)
	}
	for i := range n {
		a := s.High(i)
		if !s.Wide {
			VPMADDWD(s.x, a, a)
		}
		VPSLLD(s.shift, a, a)
	}
}

// store adds accumulator i to the eight int32s at lo and, at 512 bits, where there
// is a hi, its upper half to eight there.
func (s *sums) store(i int, lo Mem, hi *Mem) {
	y, t := s.High(i).AsY(), s.temp.AsY()
	if !s.Wide {
		VPADDD(lo, y, y)
		VMOVDQU(y, lo)
		return
	}
	VMOVDQU(lo, t)
	VPADDD(y, t, t)
	VMOVDQU(t, lo)
	if hi != nil {
		VEXTRACTI64X4(U8(1), s.High(i), t)
		VPADDD(*hi, t, t)
		VMOVDQU(t, *hi)
	}
}

// qk generates the products of nq vectors of u8 with codes of K, 16 tokens at a
// time, or 32 at 512 bits. A 256-bit load is one word of eight tokens: lanes are
// tokens, and there are no sums across lanes.
func qk(v rows.Vec, nq int) {
	name := fmt.Sprintf("qk%d%s", nq, v.Name())
	rows.Begin(name, name+" is qk for that many query vectors.",
		"func(dots *int32, ld int, plane *byte, stride int, q *byte, width int, words int, groups int, shift int)")
	dots, ld := rows.Arg("dots"), rows.Arg("ld")
	SHLQ(Imm(2), ld)
	plane, stride := rows.Arg("plane"), rows.Arg("stride")
	q0, width := rows.Arg("q"), rows.Arg("width")
	groups, shift := rows.Arg("groups"), rows.Arg("shift")
	s := newSums(v, shift)
	step := 2 // groups at a time
	if v.Wide {
		step = 4
	}
	out, k, q := rows.NewStrided(dots, ld, nq), rows.NewStrided(plane, stride, step), rows.NewStrided(q0, width, nq)
	left := GP64()
	word := []reg.VecPhysical{v.Low(4), v.Low(5)}
	code := []reg.VecPhysical{v.Low(6), v.Low(7)}
	Label("groups")
	for i := range 2 * nq {
		v.Zero(v.High(i))
	}
	k.Set(plane)
	q.Set(q0)
	Load(Param("words"), left)
	Label("words")
	for j, w := range word {
		if v.Wide {
			VMOVDQU(k.At(2*j, 0), w.AsY())
			VINSERTI64X4(U8(1), k.At(2*j+1, 0), w, w)
		} else {
			VMOVDQU(k.At(j, 0), w)
		}
	}
	for i := range 4 {
		for j := range 2 {
			s.code(word[j], code[j], i == 0)
		}
		for l := range nq {
			VPBROADCASTD(q.At(l, 4*i), s.x)
			for j := range 2 {
				s.add(s.x, code[j], v.High(2*l+j))
			}
		}
	}
	k.Advance(32)
	q.Advance(16)
	DECQ(left)
	JNZ(LabelRef("words"))
	s.finish(2 * nq)
	for l := range nq {
		for j := range 2 {
			if v.Wide {
				hi := out.At(l, 64*j+32)
				s.store(2*l+j, out.At(l, 64*j), &hi)
			} else {
				s.store(2*l+j, out.At(l, 32*j), nil)
			}
		}
	}
	out.Advance(32 * step)
	LEAQ(Mem{Base: plane, Index: stride, Scale: uint8(step)}, plane)
	SUBQ(Imm(uint64(step)), groups)
	JNZ(LabelRef("groups"))
	rows.End()
}

// pv generates the products of nq vectors of u8 weights with codes of V, 32
// channels (at 512 bits 64) at a time. A 256-bit load is four tokens of eight
// channels in each of the four bit pairs: lanes are channels.
func pv(v rows.Vec, nq int) {
	name := fmt.Sprintf("pv%d%s", nq, v.Name())
	rows.Begin(name, name+" is pv for that many vectors of weights.",
		"func(out *int32, ld int, plane *byte, stride int, p *byte, ldp int, quads int, groups int, shift int)")
	out, ld := rows.Arg("out"), rows.Arg("ld")
	SHLQ(Imm(2), ld)
	g := &pvGen{nq: nq, plane: rows.Arg("plane"), stride: rows.Arg("stride"), p: rows.Arg("p"), left: GP64()}
	ldp, groups, shift := rows.Arg("ldp"), rows.Arg("groups"), rows.Arg("shift")
	g.sums = newSums(v, shift)
	g.out, g.weights, g.at = rows.NewStrided(out, ld, nq), rows.NewStrided(g.p, ldp, nq), GP64()
	if v.Wide {
		Label("pairs")
		CMPQ(groups, Imm(2))
		JL(LabelRef("single"))
		g.group(2, 0, 4)
		ADDQ(Imm(64), g.plane)
		g.out.Advance(256)
		SUBQ(Imm(2), groups)
		JMP(LabelRef("pairs"))
		Label("single")
		TESTQ(groups, groups)
		JZ(LabelRef("done"))
		g.group(1, 0, 4)
		Label("done")
	} else { // half the bit pairs at a time: more accumulators do not fit
		Label("groups")
		g.group(1, 0, 2)
		g.group(1, 2, 4)
		ADDQ(Imm(32), g.plane)
		g.out.Advance(128)
		DECQ(groups)
		JNZ(LabelRef("groups"))
	}
	rows.End()
}

type pvGen struct {
	*sums
	nq                     int
	plane, stride, p, left reg.GPVirtual
	at                     reg.GPVirtual // words of the current tokens
	out, weights           *rows.Strided
}

// group does bit pairs [from, to) of one or two groups of 32 channels.
func (g *pvGen) group(groups, from, to int) {
	n := to - from
	for i := range g.nq * n {
		g.Zero(g.High(i))
	}
	MOVQ(g.plane, g.at)
	g.weights.Set(g.p)
	Load(Param("quads"), g.left)
	label := fmt.Sprintf("quads%d%d", groups, from)
	Label(label)
	word, code := g.Low(4), []reg.VecPhysical{g.Low(5), g.Low(6), g.Low(7), g.Low(8)}[:n]
	if groups == 2 {
		VMOVDQU64(Mem{Base: g.at}, word)
	} else {
		VMOVDQU(Mem{Base: g.at}, word.AsY())
	}
	if from > 0 {
		VPSRLD(Imm(uint64(2*from)), word, word)
	}
	for i := range n {
		g.code(word, code[i], i == 0)
	}
	for l := range g.nq {
		VPBROADCASTD(g.weights.At(l, 0), g.x)
		for i := range n {
			g.add(g.x, code[i], g.High(l*n+i))
		}
	}
	ADDQ(g.stride, g.at)
	g.weights.Advance(4)
	DECQ(g.left)
	JNZ(LabelRef(label))
	g.finish(g.nq * n)
	for l := range g.nq {
		for i := range n {
			off := 32 * (from + i)
			if groups == 2 {
				hi := g.out.At(l, 128+off)
				g.store(l*n+i, g.out.At(l, off), &hi)
			} else {
				g.store(l*n+i, g.out.At(l, off), nil)
			}
		}
	}
}
