package rows

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// PVSignature is a function's arguments: n rows of V, stride bytes apart,
// weighted with w ([vector][ld]), are added to acc ([vector][d]). next is memory
// to be fetched meanwhile. n is positive.
const PVSignature = "func(acc *float32, d int, w *float32, ld int, v *byte, stride int, n int, next *byte)"

// pv is one function being generated.
type pv struct {
	Vec
	Rows
	nq        int
	acc, w, v *Strided
	w0, v0    reg.GPVirtual
	n, next   reg.GPVirtual
	vectors   reg.GPVirtual // whole vectors of a row
	left      reg.GPVirtual
}

// PV generates a function for nq query vectors. It goes down the ladder of
// widths: columns of so many vectors of channels are summed over all rows with
// their accumulators in registers. A sum is one chain of fused multiply-adds in
// row order, whatever nq and the ladder are. At 256 bits it takes the whole
// vectors of a row only; the caller adds the last d%8 channels.
func PV(v Vec, r Rows, nq int, ladder ...int) {
	g := &pv{Vec: v, Rows: r, nq: nq}
	Begin(fmt.Sprintf("pv%d%s%s", nq, r.Name, v.Name()),
		fmt.Sprintf("pv%d%s%s is pv for %d query vectors.", nq, r.Name, v.Name(), nq), PVSignature)
	acc, d, ds := Arg("acc"), Arg("d"), GP64()
	MOVQ(d, ds)
	SHLQ(Imm(2), ds)
	g.acc = NewStrided(acc, ds, nq)
	var rest reg.GPVirtual
	if v.Wide {
		rest = GP64()
		MOVQ(d, rest)
		ANDQ(Imm(15), rest)
		Mask(rest)
	}
	SHRQ(Imm(uint64(3+b(v.Wide))), d)
	g.vectors = d
	g.w0, g.v0 = Arg("w"), Arg("v")
	ld := Arg("ld")
	SHLQ(Imm(2), ld)
	g.w, g.v = NewStrided(g.w0, ld, nq), NewStrided(g.v0, Arg("stride"), 1)
	g.n, g.next, g.left = Arg("n"), Arg("next"), GP64()
	for _, c := range ladder {
		name := fmt.Sprintf("width%d", c)
		Label(name)
		CMPQ(g.vectors, Imm(uint64(c)))
		JL(LabelRef(name + "end"))
		g.column(c, nil)
		ADDQ(I32(c*g.Lanes()*g.Bytes), g.v0)
		ADDQ(I32(c*g.Lanes()*4), g.acc.Base)
		SUBQ(Imm(uint64(c)), g.vectors)
		JMP(LabelRef(name))
		Label(name + "end")
	}
	if v.Wide {
		TESTQ(rest, rest)
		JZ(LabelRef("done"))
		g.column(1, reg.K1)
		Label("done")
	}
	End()
}

// column sums c vectors of channels over all rows.
func (g *pv) column(c int, m reg.Register) {
	for i := range g.nq {
		for j := range c {
			LoadF32(g.acc.At(i, 4*j*g.Lanes()), m, g.High(i*c+j))
		}
	}
	g.w.Set(g.w0)
	g.v.Set(g.v0)
	MOVQ(g.n, g.left)
	name := fmt.Sprintf("rows%d", c)
	if m != nil {
		name = "rowsmasked"
	}
	Label(name)
	g.row(c, m)
	ADDQ(Imm(4), g.w.Base)
	ADDQ(g.v.Stride, g.v.Base)
	DECQ(g.left)
	JNZ(LabelRef(name))
	for i := range g.nq {
		for j := range c {
			StoreF32(g.High(i*c+j), m, g.acc.At(i, 4*j*g.Lanes()))
		}
	}
}

// row adds one row. The operand of which there are fewer is held in registers
// and the other streams by.
func (g *pv) row(c int, m reg.Register) {
	if g.Prefetch {
		bytes := c * g.Bytes * g.Lanes()
		for off := 0; off < bytes; off += 64 {
			PREFETCHT1(Mem{Base: g.next, Disp: off})
		}
		ADDQ(I32(bytes), g.next)
	}
	if g.nq < c {
		for i := range g.nq {
			VBROADCASTSS(g.w.At(i, 0), g.Low(i))
		}
		for j := range c {
			r := g.Turn(j, g.nq, g.nq*c)
			g.Load(g.v.At(0, j*g.Lanes()*g.Bytes), m, r)
			for i := range g.nq {
				VFMADD231PS(r, g.Low(i), g.High(i*c+j))
			}
		}
		return
	}
	for j := range c {
		g.Load(g.v.At(0, j*g.Lanes()*g.Bytes), m, g.Low(j))
	}
	for i := range g.nq {
		r := g.Turn(i, c, g.nq*c)
		VBROADCASTSS(g.w.At(i, 0), r)
		for j := range c {
			VFMADD231PS(r, g.Low(j), g.High(i*c+j))
		}
	}
}
