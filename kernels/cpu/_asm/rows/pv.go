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
	nq           int
	acc, w, v    strided
	n, next      reg.GPVirtual
	vectors      reg.GPVirtual
	d            reg.GPVirtual
	w0, v0, left reg.GPVirtual
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
	g.acc.base = arg("acc")
	g.d = arg("d")
	ds := GP64()
	MOVQ(g.d, ds)
	SHLQ(Imm(2), ds)
	g.acc.stride = ds
	var rest reg.GPVirtual
	if v.Wide {
		rest = GP64()
		MOVQ(g.d, rest)
		ANDQ(Imm(15), rest)
		Mask(rest)
	}
	SHRQ(Imm(uint64(3+b(v.Wide))), g.d)
	g.vectors = g.d
	g.w0 = arg("w")
	ld := arg("ld")
	SHLQ(Imm(2), ld)
	g.w.stride = ld
	g.v0 = arg("v")
	g.v.stride = arg("stride")
	g.n, g.next = arg("n"), arg("next")
	if nq > 3 {
		g.acc.three, g.w.three = times(ds, 3), times(ld, 3)
	}
	g.w.base, g.v.base, g.left = GP64(), GP64(), GP64()
	for _, c := range ladder {
		name := fmt.Sprintf("width%d", c)
		Label(name)
		CMPQ(g.vectors, Imm(uint64(c)))
		JL(LabelRef(name + "end"))
		g.column(c, nil)
		ADDQ(I32(c*g.Lanes()*g.Bytes), g.v0)
		ADDQ(I32(c*g.Lanes()*4), g.acc.base)
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
			LoadF32(g.acc.at(i, 4*j*g.Lanes()), m, g.High(i*c+j))
		}
	}
	MOVQ(g.w0, g.w.base)
	MOVQ(g.v0, g.v.base)
	MOVQ(g.n, g.left)
	name := fmt.Sprintf("rows%d", c)
	if m != nil {
		name = "rowsmasked"
	}
	Label(name)
	g.row(c, m)
	ADDQ(Imm(4), g.w.base)
	ADDQ(g.v.stride, g.v.base)
	DECQ(g.left)
	JNZ(LabelRef(name))
	for i := range g.nq {
		for j := range c {
			StoreF32(g.High(i*c+j), m, g.acc.at(i, 4*j*g.Lanes()))
		}
	}
}

// row adds one row. The operand of which there are fewer is held in registers
// and the other streams by.
func (g *pv) row(c int, m reg.Register) {
	if g.Prefetch {
		bytes := c * g.Bytes * g.Lanes()
		for off := 0; off < bytes; off += 64 {
			PREFETCHT0(Mem{Base: g.next, Disp: off})
		}
		ADDQ(I32(bytes), g.next)
	}
	if g.nq < c {
		for i := range g.nq {
			VBROADCASTSS(g.w.at(i, 0), g.Low(i))
		}
		for j := range c {
			r := g.Low(g.nq + j%2)
			g.Load(g.v.at(0, j*g.Lanes()*g.Bytes), m, r)
			for i := range g.nq {
				VFMADD231PS(r, g.Low(i), g.High(i*c+j))
			}
		}
		return
	}
	for j := range c {
		g.Load(g.v.at(0, j*g.Lanes()*g.Bytes), m, g.Low(j))
	}
	for i := range g.nq {
		r := g.Low(c)
		if g.Wide {
			r = g.Low(c + i%2)
		}
		VBROADCASTSS(g.w.at(i, 0), r)
		for j := range c {
			VFMADD231PS(r, g.Low(j), g.High(i*c+j))
		}
	}
}
