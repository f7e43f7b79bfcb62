package main

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

// Registers of qk.
const (
	qkW, qkLd, qkK, qkStride = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
	qkQ, qkD, qkN, qkNext    = neon.R(4), neon.R(5), neon.R(6), neon.R(7)
	qkVectors, qkLeft, qkOut = neon.R(8), neon.R(9), neon.R(23)
	qkRow, qkVector          = neon.R(10), neon.R(19) // one for every token; vector
)

// qk generates a function for nq query vectors that takes tokens at a time. Its
// sums over the channels are chains of fused multiply-adds, one per lane, and then
// (0+1)+(2+3), whatever nq and tokens are. It takes whole fours of channels only:
// the caller adds the others.
func qk(file *neon.File, r rows, nq, tokens int) {
	f := file.Func(fmt.Sprintf("qk%d%sNEON", nq, r.name), "(w *float32, ld int, k *byte, stride int, q *float32, d int, n int, next *byte)",
		fmt.Sprintf("is qk for %d query vectors.", nq))
	for i, name := range []string{"w", "ld", "k", "stride", "q", "d", "n", "next"} {
		f.Arg(name, qkW+neon.R(i))
	}
	f.Go("LSL $2, %v", qkLd)
	f.Go("LSR $2, %v, %v", qkD, qkVectors)
	f.Go("LSL $2, %v", qkD)
	for _, t := range []int{tokens, 1} {
		loop, end := f.NewLabel("tokens"), f.NewLabel("end")
		f.Label(loop)
		f.Go("CMP $%d, %v", t, qkN)
		f.Go("BLT %s", end)
		qkBlock(f, r, nq, t)
		f.Go("ADD $%d, %v", 4*t, qkW)
		f.Go("SUB $%d, %v", t, qkN)
		f.Go("B %s", loop)
		f.Label(end)
	}
	f.Go("RET")
}

// qkBlock does t tokens and leaves k behind them.
func qkBlock(f *neon.Func, r rows, nq, t int) {
	sum := func(i, j int) neon.V { return neon.V(i*t + j) }
	for v := range nq * t {
		f.Zero(neon.V(v))
	}
	for j := range t {
		f.Go("MOVD %v, %v", qkK, qkRow+neon.R(j))
		f.Go("ADD %v, %v", qkStride, qkK)
	}
	f.Go("MOVD %v, %v", qkQ, qkVector)
	for i := 1; i < nq; i++ {
		f.Go("ADD %v, %v, %v", qkD, qkVector+neon.R(i-1), qkVector+neon.R(i))
	}
	channels, none := f.NewLabel("channels"), f.NewLabel("none")
	f.Go("MOVD %v, %v", qkVectors, qkLeft)
	f.Go("CBZ %v, %s", qkLeft, none)
	f.Label(channels)
	r.fetch(f, qkNext, 4*t*r.bytes)
	for i := range nq {
		f.Go("VLD1.P 16(%v), [V%d.S4]", qkVector+neon.R(i), 16+i)
	}
	for j := range t {
		x := neon.V(20 + j)
		r.load(f, qkRow+neon.R(j), x)
		for i := range nq {
			f.FMLA(neon.S4, sum(i, j), x, neon.V(16+i))
		}
	}
	f.Repeat(channels, 1, qkLeft)
	f.Label(none)
	f.Go("MOVD %v, %v", qkW, qkOut)
	for i := range nq {
		if i > 0 {
			f.Go("ADD %v, %v", qkLd, qkOut)
		}
		if t == 1 {
			v := sum(i, 0)
			f.FADDP(neon.S4, v, v, v)
			f.FADDP(neon.S4, v, v, v)
			f.Store(4, v, qkOut, 0)
		}
		for j := 0; j+4 <= t; j += 4 {
			v := sum(i, j)
			f.FADDP(neon.S4, v, v, v+1)
			f.FADDP(neon.S4, v+2, v+2, v+3)
			f.FADDP(neon.S4, v, v, v+2)
			f.Store(16, v, qkOut, 4*j)
		}
	}
}
