package rows

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Rows says what is in memory.
type Rows struct {
	Name     string                                            // as part of function names
	Bytes    int                                               // of one channel
	Load     func(mem Mem, m reg.Register, to reg.VecPhysical) // a vector's worth of a row, widened; masked where m is not nil
	Prefetch bool                                              // fetch as many bytes ahead as are read
}

// QKSignature is a function's arguments: n scores of each of the function's
// query vectors q ([vector][d]) with rows stride bytes apart go to w
// ([vector][ld]). next is memory to be fetched meanwhile.
const QKSignature = "func(w *float32, ld int, k *byte, stride int, q *float32, d int, n int, next *byte)"

// qk is one function being generated.
type qk struct {
	Vec
	Rows
	nq        int
	w, ld     reg.GPVirtual
	k, stride reg.GPVirtual
	q, qs     reg.GPVirtual
	n, next   reg.GPVirtual
	vectors   reg.GPVirtual // whole vectors of a row
	rest      reg.GPVirtual // AVX-512: channels in the last, partial one
	mask      reg.Register
}

// QK generates a function for nq query vectors that takes tokens at a time. Its
// sums over the channels are chains of fused multiply-adds, one per lane, then
// Reduce4's order, whatever nq and tokens are. At 256 bits it takes the whole
// vectors of a row only; the caller adds the last d%8 channels.
func QK(v Vec, r Rows, nq, tokens int) {
	g := &qk{Vec: v, Rows: r, nq: nq}
	Begin(fmt.Sprintf("qk%d%s%s", nq, r.Name, v.Name()),
		fmt.Sprintf("qk%d%s%s is qk for %d query vectors.", nq, r.Name, v.Name(), nq), QKSignature)
	g.w, g.ld, g.k, g.stride, g.q = Arg("w"), Arg("ld"), Arg("k"), Arg("stride"), Arg("q")
	SHLQ(Imm(2), g.ld)
	d := Arg("d")
	g.qs = GP64()
	MOVQ(d, g.qs)
	SHLQ(Imm(2), g.qs)
	g.vectors = GP64()
	MOVQ(d, g.vectors)
	SHRQ(Imm(uint64(3+b(v.Wide))), g.vectors)
	if v.Wide {
		g.rest = d
		ANDQ(Imm(15), g.rest)
		g.mask = Mask(g.rest)
	}
	g.n, g.next = Arg("n"), Arg("next")
	for _, t := range []int{tokens, 1} {
		Label(fmt.Sprintf("tokens%d", t))
		CMPQ(g.n, Imm(uint64(t)))
		JL(LabelRef(fmt.Sprintf("end%d", t)))
		g.block(t)
		advanceRows(g.k, g.stride, t)
		ADDQ(Imm(uint64(4*t)), g.w)
		SUBQ(Imm(uint64(t)), g.n)
		JMP(LabelRef(fmt.Sprintf("tokens%d", t)))
		Label(fmt.Sprintf("end%d", t))
	}
	End()
}

func b(x bool) int {
	if x {
		return 1
	}
	return 0
}

// advanceRows moves a pointer by t rows.
func advanceRows(p, stride reg.Register, t int) {
	switch t {
	case 3:
		LEAQ(Mem{Base: p, Index: stride, Scale: 2}, p)
		ADDQ(stride, p)
	case 1, 2, 4, 8:
		LEAQ(Mem{Base: p, Index: stride, Scale: uint8(t)}, p)
	default:
		panic(t)
	}
}

// Mask sets K1 to the lowest n lanes.
func Mask(n reg.Register) reg.Register {
	MOVQ(n, reg.RCX)
	m := GP64()
	MOVQ(U64(1), m)
	SHLQ(reg.CL, m)
	DECQ(m)
	KMOVW(m.As32(), reg.K1)
	return reg.K1
}

// acc is the accumulator of vector i and token t.
func (g *qk) acc(i, t, tokens int) reg.VecPhysical { return g.High(i*tokens + t) }

// block does tokens [0, t).
func (g *qk) block(t int) {
	for i := range g.nq * t {
		g.Zero(g.High(i))
	}
	k, q := NewStrided(g.k, g.stride, t), NewStrided(g.q, g.qs, g.nq)
	left := GP64()
	name := fmt.Sprintf("channels%d", t)
	MOVQ(g.vectors, left)
	TESTQ(left, left)
	JZ(LabelRef(name + "end"))
	Label(name)
	g.step(k, q, t, nil)
	k.Advance(g.Bytes * g.Lanes())
	q.Advance(4 * g.Lanes())
	DECQ(left)
	JNZ(LabelRef(name))
	Label(name + "end")
	if g.Wide {
		TESTQ(g.rest, g.rest)
		JZ(LabelRef(name + "rest"))
		g.step(k, q, t, g.mask)
		Label(name + "rest")
	}
	g.store(t)
}

// step does one vector of channels. The operand of which there are fewer is held
// in registers and the other streams by.
func (g *qk) step(k, q *Strided, t int, m reg.Register) {
	if g.Prefetch {
		bytes := t * g.Bytes * g.Lanes()
		for off := 0; off < bytes; off += 64 {
			PREFETCHT1(Mem{Base: g.next, Disp: off})
		}
		ADDQ(I32(bytes), g.next)
	}
	if g.nq < t {
		for i := range g.nq {
			LoadF32(q.At(i, 0), m, g.Low(i))
		}
		for j := range t {
			r := g.Turn(j, g.nq, g.nq*t)
			g.Load(k.At(j, 0), m, r)
			for i := range g.nq {
				VFMADD231PS(r, g.Low(i), g.acc(i, j, t))
			}
		}
		return
	}
	for j := range t {
		g.Load(k.At(j, 0), m, g.Low(j))
	}
	for i := range g.nq {
		r := g.Turn(i, t, g.nq*t)
		LoadF32(q.At(i, 0), m, r)
		for j := range t {
			VFMADD231PS(r, g.Low(j), g.acc(i, j, t))
		}
	}
}

// store reduces the accumulators and writes the scores.
func (g *qk) store(t int) {
	w := NewStrided(g.w, g.ld, g.nq)
	temps := [4]reg.VecPhysical{g.Low(0), g.Low(1), g.Low(2), g.Low(3)}
	reduce := func(at ...[2]int) reg.VecPhysical { // of (vector, token)
		var a [4]reg.VecPhysical
		for i := range a {
			x := at[i%len(at)]
			a[i] = g.acc(x[0], x[1], t)
		}
		return g.Reduce4(a[0], a[1], a[2], a[3], temps)
	}
	column := func(j int) { // all vectors of one token
		var at [][2]int
		for i := range g.nq {
			at = append(at, [2]int{i, j})
		}
		r := reduce(at...)
		for i := range g.nq {
			if i == 0 {
				VMOVSS(r, w.At(i, 4*j))
			} else {
				VEXTRACTPS(U8(i), r, w.At(i, 4*j))
			}
		}
	}
	j := 0
	for ; j+4 <= t; j += 4 {
		for i := range g.nq {
			VMOVUPS(reduce([2]int{i, j}, [2]int{i, j + 1}, [2]int{i, j + 2}, [2]int{i, j + 3}), w.At(i, 4*j))
		}
	}
	for ; j+2 <= t && g.nq%2 == 0; j += 2 {
		for i := 0; i < g.nq; i += 2 {
			r := reduce([2]int{i, j}, [2]int{i, j + 1}, [2]int{i + 1, j}, [2]int{i + 1, j + 1})
			VMOVLPS(r, w.At(i, 4*j))
			VMOVHPS(r, w.At(i+1, 4*j))
		}
	}
	for ; j < t; j++ {
		column(j)
	}
}
