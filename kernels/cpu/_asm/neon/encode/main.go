// Command encode generates kernels/cpu/encode's assembly for arm64.
package main

import (
	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

const (
	// blockTokens is the number of tokens that are coded together, one to a lane of
	// parts vectors.
	blockTokens = 16
	parts       = blockTokens / 4
	// columnBytes is the size of one channel of a block.
	columnBytes = 4 * blockTokens
)

// Offsets in the Go package's levels and fitted.
const (
	offLast   = 0
	offHalf   = columnBytes
	offPlaces = 2 * columnBytes
	offClips  = 3 * columnBytes

	offScale   = 0
	offInverse = columnBytes
	offZero    = 2 * columnBytes
	offStored  = 3 * columnBytes
)

// largestF16 is the largest finite float16.
const largestF16 = 65504

func main() {
	f := neon.Start()
	narrow(f)
	load(f)
	fit(f)
	pack(f, "packKeysNEON", "codes n >= 1 words of a block of K; the words of tokens 8 to 15 lie stride bytes after those of 0 to 7.", packKeys)
	pack(f, "packValuesNEON", "codes n >= 1 groups of 32 channels of a block of V; each four tokens' words lie stride bytes after the last four's.", packValues)
	f.Write()
}

// count repeats body n times, n >= 1, which it counts down.
func count(f *neon.Func, name string, n neon.R, body func()) {
	loop := f.NewLabel(name)
	f.Label(loop)
	body()
	f.Go("SUBS $1, %v", n)
	f.Go("BNE %s", loop)
}

func narrow(out *neon.File) {
	f := out.Func("narrowNEON", "(dst *byte, src *float32, n int)", "stores n numbers as float16: saturated, NaN as 0.")
	const dst, src, n, most, least = neon.R(0), neon.R(1), neon.R(2), neon.V(30), neon.V(31)
	f.Arg("dst", dst)
	f.Arg("src", src)
	f.Arg("n", n)
	f.Floats(largestF16, most)
	f.Floats(-largestF16, least)
	f.Sweep(n, 2, map[neon.R]int{dst: 2, src: 4}, func(s neon.Step) {
		v := neon.V(2 * s.U)
		s.Load(4, src, v)
		f.FCMEQ(neon.S4, v+1, v, v)
		f.AND(v, v, v+1)
		f.FMIN(neon.S4, v, v, most)
		f.FMAX(neon.S4, v, v, least)
		f.FCVTN(neon.S4, v, v, false)
		s.Store(2, v, dst)
	})
	f.Go("RET")
}

// load transposes 16 rows of float16 into columns of 16 float32, eight by eight.
func load(out *neon.File) {
	f := out.Func("loadNEON", "(dst *float32, src *byte, stride, n int)",
		"widens n channels (at least 8, a multiple of 8) of 16 rows into columns, saturated, NaN as 0.")
	const (
		dst, src, stride, n, row  = neon.R(0), neon.R(1), neon.R(2), neon.R(3), neon.R(4)
		sign, infinite, most      = neon.V(29), neon.V(30), neon.V(31)
		magnitude, nan, wide, up2 = neon.V(24), neon.V(25), neon.V(26), neon.V(27)
	)
	f.Arg("dst", dst)
	f.Arg("src", src)
	f.Arg("stride", stride)
	f.Arg("n", n)
	f.Words(0x80008000, sign)
	f.Words(0x7c007c00, infinite)
	f.Words(0x7bff7bff, most)
	f.Go("LSR $3, %v", n)
	count(f, "channels", n, func() {
		f.Go("MOVD %v, %v", src, row)
		for half := range 2 {
			for t := range neon.V(8) {
				f.Load(16, row, 0, t)
				f.Go("ADD %v, %v", stride, row)
				// Infinities become the largest finite numbers, NaN 0.
				f.BIC(magnitude, t, sign)
				f.AND(t, t, sign)
				f.CMGT(neon.H8, nan, magnitude, infinite)
				f.UMIN(neon.H8, magnitude, magnitude, most)
				f.ORR(t, t, magnitude)
				f.BIC(t, t, nan)
			}
			pair := func(a neon.Arr, to, x, y neon.V) {
				f.ZIP1(a, to, x, y)
				f.ZIP2(a, to+1, x, y)
			}
			for i := neon.V(0); i < 8; i += 2 {
				pair(neon.H8, 8+i, i, i+1)
			}
			for i := neon.V(0); i < 8; i += 4 {
				pair(neon.S4, i, 8+i, 8+i+2)
				pair(neon.S4, i+2, 8+i+1, 8+i+3)
			}
			for i := range neon.V(4) {
				pair(neon.D2, 8+2*i, i, i+4)
			}
			for c := range 8 {
				f.FCVTL(neon.S4, wide, neon.V(8+c), false)
				f.FCVTL(neon.S4, up2, neon.V(8+c), true)
				f.Store(16, wide, dst, c*columnBytes+32*half)
				f.Store(16, up2, dst, c*columnBytes+32*half+16)
			}
		}
		f.Go("ADD $16, %v", src)
		f.Go("ADD $%d, %v", 8*columnBytes, dst)
	})
	f.Go("RET")
}
