package main

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

// Registers of pv.
const (
	pvAcc, pvD, pvW, pvLd         = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
	pvV, pvStride, pvN, pvNext    = neon.R(4), neon.R(5), neon.R(6), neon.R(7)
	pvVectors, pvLeft, pvRow, pvA = neon.R(8), neon.R(9), neon.R(10), neon.R(11)
	pvAt, pvWeight                = neon.R(12), neon.R(13) // one weight for every vector
)

// pv generates a function for nq query vectors. Columns of so many vectors of
// channels, and then of one, are summed over all rows in registers. A sum is one
// chain of fused multiply-adds in row order, whatever nq and columns are. It takes
// whole fours of channels only: the caller adds the others.
func pv(file *neon.File, r rows, nq, columns int) {
	f := file.Func(fmt.Sprintf("pv%d%sNEON", nq, r.name), "(acc *float32, d int, w *float32, ld int, v *byte, stride int, n int, next *byte)",
		fmt.Sprintf("is pv for %d query vectors.", nq))
	for i, name := range []string{"acc", "d", "w", "ld", "v", "stride", "n", "next"} {
		f.Arg(name, pvAcc+neon.R(i))
	}
	f.Go("LSL $2, %v", pvLd)
	f.Go("LSR $2, %v, %v", pvD, pvVectors)
	f.Go("LSL $2, %v", pvD)
	for _, c := range []int{columns, 1} {
		loop, end := f.NewLabel("width"), f.NewLabel("end")
		f.Label(loop)
		f.Go("CMP $%d, %v", c, pvVectors)
		f.Go("BLT %s", end)
		pvColumns(f, r, nq, c)
		f.Go("ADD $%d, %v", c*4*r.bytes, pvV)
		f.Go("ADD $%d, %v", c*16, pvAcc)
		f.Go("SUB $%d, %v", c, pvVectors)
		f.Go("B %s", loop)
		f.Label(end)
	}
	f.Go("RET")
}

// pvColumns sums c vectors of channels over all rows.
func pvColumns(f *neon.Func, r rows, nq, c int) {
	each := func(do func(v neon.V, at int)) {
		f.Go("MOVD %v, %v", pvAcc, pvA)
		for i := range nq {
			if i > 0 {
				f.Go("ADD %v, %v", pvD, pvA)
			}
			for j := range c {
				do(neon.V(i*c+j), 16*j)
			}
		}
	}
	each(func(v neon.V, at int) { f.Load(16, pvA, at, v) })
	f.Go("MOVD %v, %v", pvV, pvRow)
	f.Go("MOVD %v, %v", pvW, pvWeight)
	for i := 1; i < nq; i++ {
		f.Go("ADD %v, %v, %v", pvLd, pvWeight+neon.R(i-1), pvWeight+neon.R(i))
	}
	f.Go("MOVD %v, %v", pvN, pvLeft)
	loop := f.NewLabel("rows")
	f.Label(loop)
	r.fetch(f, pvNext, 4*c*r.bytes)
	for i := range nq {
		p := pvWeight + neon.R(i)
		f.Load(4, p, 0, neon.V(16+i))
		f.Go("ADD $4, %v", p)
	}
	f.Go("MOVD %v, %v", pvRow, pvAt)
	for j := range c {
		x := neon.V(20 + j)
		r.load(f, pvAt, x)
		for i := range nq {
			f.FMLALane(neon.V(i*c+j), x, neon.V(16+i), 0)
		}
	}
	f.Go("ADD %v, %v", pvStride, pvRow)
	f.Repeat(loop, 1, pvLeft)
	each(func(v neon.V, at int) { f.Store(16, v, pvA, at) })
}
