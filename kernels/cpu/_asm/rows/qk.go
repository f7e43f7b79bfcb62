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

// strided addresses rows that lie a stride apart: up to eight of them.
type strided struct {
	base, base4    reg.GPVirtual // rows 0 and 4
	stride, three  reg.Register  // bytes
	hasThree, has4 bool
}

// at is byte off of row i.
func (s *strided) at(i, off int) Mem {
	m := Mem{Base: s.base, Disp: off}
	if i >= 4 {
		m.Base = s.base4
	}
	switch i % 4 {
	case 1:
		m.Index, m.Scale = s.stride, 1
	case 2:
		m.Index, m.Scale = s.stride, 2
	case 3:
		m.Index, m.Scale = s.three, 1
	}
	return m
}

func (s *strided) advance(n int, rows int) {
	ADDQ(I32(n), s.base)
	if rows > 4 {
		ADDQ(I32(n), s.base4)
	}
}

// QKSignature is a function's arguments: n scores of each of the function's
// query vectors q ([vector][d]) with rows stride bytes apart go to w
// ([vector][ld]). next is memory to be fetched meanwhile.
const QKSignature = "func(w *float32, ld int, k *byte, stride int, q *float32, d int, n int, next *byte)"

// qk is one function being generated.
type qk struct {
	Vec
	Rows
	nq              int
	w, ld, ld3      reg.GPVirtual
	k, stride       reg.GPVirtual
	stride3         reg.Register
	q, qs, qs3      reg.GPVirtual
	n, next         reg.GPVirtual
	vectors         reg.GPVirtual // whole vectors of a row
	rest            reg.GPVirtual // AVX-512: channels in the last, partial one
	mask            reg.Register
	labels          string
	kp, kp4, qp, at reg.GPVirtual
}

// QK generates a function for nq query vectors that takes tokens at a time. Its
// sums over the channels are chains of fused multiply-adds, one per lane, then
// Reduce4's order, whatever nq and tokens are. At 256 bits it takes the whole
// vectors of a row only; the caller adds the last d%8 channels.
func QK(v Vec, r Rows, nq, tokens int) {
	g := &qk{Vec: v, Rows: r, nq: nq}
	Begin(fmt.Sprintf("qk%d%s%s", nq, r.Name, v.Name()),
		fmt.Sprintf("qk%d%s%s is qk for %d query vectors.", nq, r.Name, v.Name(), nq), QKSignature)
	g.w, g.ld, g.k, g.stride, g.q = arg("w"), arg("ld"), arg("k"), arg("stride"), arg("q")
	SHLQ(Imm(2), g.ld)
	d := arg("d")
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
	g.n, g.next = arg("n"), arg("next")
	if tokens > 3 {
		g.stride3 = times(g.stride, 3)
	}
	if nq > 3 {
		g.qs3 = times(g.qs, 3)
	}
	for _, t := range []int{tokens, 1} {
		Label(fmt.Sprintf("tokens%d", t))
		CMPQ(g.n, Imm(uint64(t)))
		JL(LabelRef(fmt.Sprintf("end%d", t)))
		g.block(t)
		if t == 1 {
			ADDQ(g.stride, g.k)
		} else {
			advanceRows(g.k, g.stride, g.stride3, t)
		}
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
func advanceRows(p, stride, stride3 reg.Register, t int) {
	switch t {
	case 2:
		LEAQ(Mem{Base: p, Index: stride, Scale: 2}, p)
	case 3:
		LEAQ(Mem{Base: p, Index: stride, Scale: 2}, p)
		ADDQ(stride, p)
	case 4:
		LEAQ(Mem{Base: p, Index: stride, Scale: 4}, p)
	case 8:
		LEAQ(Mem{Base: p, Index: stride, Scale: 8}, p)
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
	k := &strided{base: GP64(), stride: g.stride, three: g.stride3}
	MOVQ(g.k, k.base)
	if t > 4 {
		k.base4 = GP64()
		LEAQ(Mem{Base: g.k, Index: g.stride, Scale: 4}, k.base4)
	}
	q := &strided{base: GP64(), stride: g.qs, three: g.qs3}
	MOVQ(g.q, q.base)
	left := GP64()
	name := fmt.Sprintf("channels%d", t)
	MOVQ(g.vectors, left)
	TESTQ(left, left)
	JZ(LabelRef(name + "end"))
	Label(name)
	g.step(k, q, t, nil)
	k.advance(g.Bytes*g.Lanes(), t)
	q.advance(4*g.Lanes(), g.nq)
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
func (g *qk) step(k, q *strided, t int, m reg.Register) {
	if g.Prefetch {
		bytes := t * g.Bytes * g.Lanes()
		for off := 0; off < bytes; off += 64 {
			PREFETCHT0(Mem{Base: g.next, Disp: off})
		}
		ADDQ(I32(bytes), g.next)
	}
	if g.nq < t {
		for i := range g.nq {
			LoadF32(q.at(i, 0), m, g.Low(i))
		}
		for j := range t {
			r := g.Low(g.nq + j%2)
			g.Load(k.at(j, 0), m, r)
			for i := range g.nq {
				VFMADD231PS(r, g.Low(i), g.acc(i, j, t))
			}
		}
		return
	}
	for j := range t {
		g.Load(k.at(j, 0), m, g.Low(j))
	}
	for i := range g.nq {
		r := g.Low(t)
		if g.Wide {
			r = g.Low(t + i%2)
		}
		LoadF32(q.at(i, 0), m, r)
		for j := range t {
			VFMADD231PS(r, g.Low(j), g.acc(i, j, t))
		}
	}
}

// store reduces the accumulators and writes the scores.
func (g *qk) store(t int) {
	w := &strided{base: g.w, stride: g.ld}
	if g.nq > 3 {
		w.three = times(g.ld, 3)
	}
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
				VMOVSS(r, w.at(i, 4*j))
			} else {
				VEXTRACTPS(U8(i), r, w.at(i, 4*j))
			}
		}
	}
	j := 0
	for ; j+4 <= t; j += 4 {
		for i := range g.nq {
			VMOVUPS(reduce([2]int{i, j}, [2]int{i, j + 1}, [2]int{i, j + 2}, [2]int{i, j + 3}), w.at(i, 4*j))
		}
	}
	for ; j+2 <= t && g.nq%2 == 0; j += 2 {
		for i := 0; i < g.nq; i += 2 {
			r := reduce([2]int{i, j}, [2]int{i, j + 1}, [2]int{i + 1, j}, [2]int{i + 1, j + 1})
			VMOVLPS(r, w.at(i, 4*j))
			VMOVHPS(r, w.at(i+1, 4*j))
		}
	}
	for ; j < t; j++ {
		column(j)
	}
}
