package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

func sumSquares(out *neon.File) {
	f := out.Func("sumSquaresNEON", "(x []float32) (sum float64)", "is the sum of x's squares, in lanes of float64.")
	const x, n = neon.R(0), neon.R(1)
	f.Arg("x_base", x)
	f.Arg("x_len", n)
	f.Zero(0, 1, 2, 3)
	f.Sweep(n, 2, map[neon.R]int{x: 4}, func(s neon.Step) {
		s.Load(4, x, 4)
		square(f, 4, neon.V(2*s.U))
	})
	sumOfLanes(f)
	f.FResult("sum", 0)
	f.Go("RET")
}

// square adds the squares of v's lanes to sums of float64 in to and to+1.
func square(f *neon.Func, v, to neon.V) {
	f.FCVTL(neon.D2, v+1, v, false)
	f.FCVTL(neon.D2, v+2, v, true)
	f.FMLA(neon.D2, to, v+1, v+1)
	f.FMLA(neon.D2, to+1, v+2, v+2)
}

// sumOfLanes adds up V0 to V3 into the lowest lane of V0, as float64.
func sumOfLanes(f *neon.Func) {
	f.FADD(neon.D2, 0, 0, 1)
	f.FADD(neon.D2, 2, 2, 3)
	f.FADD(neon.D2, 0, 0, 2)
	f.FADDP(neon.D2, 0, 0, 0)
}

func scale(out *neon.File) {
	f := out.Func("scaleNEON", "(dst, x, weight []float32, factor float32)", "does dst = x·factor·weight for len(weight) elements.")
	const dst, x, weight, n = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
	f.Arg("dst_base", dst)
	f.Arg("x_base", x)
	f.Arg("weight_base", weight)
	f.Arg("weight_len", n)
	f.Scalar("factor", 31)
	f.Sweep(n, 4, map[neon.R]int{dst: 4, x: 4, weight: 4}, func(s neon.Step) {
		v, w := neon.V(2*s.U), neon.V(2*s.U+1)
		s.Load(4, x, v)
		s.Load(4, weight, w)
		f.FMUL(neon.S4, v, v, 31)
		f.FMUL(neon.S4, v, v, w)
		s.Store(4, v, dst)
	})
	f.Go("RET")
}

func multiply(out *neon.File) {
	f := out.Func("multiplyNEON", "(x []float32, factor float32)", "does x *= factor.")
	const x, n = neon.R(0), neon.R(1)
	f.Arg("x_base", x)
	f.Arg("x_len", n)
	f.Scalar("factor", 31)
	f.Sweep(n, 4, map[neon.R]int{x: 4}, func(s neon.Step) {
		v := neon.V(s.U)
		s.Load(4, x, v)
		f.FMUL(neon.S4, v, v, 31)
		s.Store(4, v, x)
	})
	f.Go("RET")
}

func add(out *neon.File) {
	f := out.Func("addNEON", "(x, y []float32)", "does x += y for len(y) elements.")
	const x, y, n = neon.R(0), neon.R(1), neon.R(2)
	f.Arg("x_base", x)
	f.Arg("y_base", y)
	f.Arg("y_len", n)
	f.Sweep(n, 4, map[neon.R]int{x: 4, y: 4}, func(s neon.Step) {
		v, w := neon.V(2*s.U), neon.V(2*s.U+1)
		s.Load(4, x, v)
		s.Load(4, y, w)
		f.FADD(neon.S4, v, v, w)
		s.Store(4, v, x)
	})
	f.Go("RET")
}

// rope is the registers of both rotary embeddings: x, and what is of the current
// channels and head.
const (
	ropeX, ropeHeads, ropeStride = neon.R(0), neon.R(1), neon.R(2)
	ropeCos, ropeSin, ropeN      = neon.R(3), neon.R(4), neon.R(5)
	ropeHead, ropeLeft, ropeHalf = neon.R(6), neon.R(7), neon.R(8)
	ropeSecond                   = neon.R(9)
)

func ropeArgs(f *neon.Func) {
	f.Arg("x_base", ropeX)
	f.Arg("heads", ropeHeads)
	f.Arg("headDim", ropeStride)
	f.Arg("cos_base", ropeCos)
	f.Arg("sin_base", ropeSin)
	f.Arg("cos_len", ropeN)
	f.Go("LSL $2, %v", ropeStride)
}

// overHeads repeats body for every head of a row, whose channel is at ropeHead.
func overHeads(f *neon.Func, body func()) {
	loop := f.NewLabel("heads")
	f.Go("MOVD %v, %v", ropeX, ropeHead)
	f.Go("MOVD %v, %v", ropeHeads, ropeLeft)
	f.Label(loop)
	body()
	f.Go("ADD %v, %v", ropeStride, ropeHead)
	f.Go("SUBS $1, %v", ropeLeft)
	f.Go("BNE %s", loop)
}

func ropeHalves(out *neon.File) {
	f := out.Func("ropeHalvesNEON", "(x []float32, heads, headDim int, cos, sin []float32)",
		"turns channels (i, i+len(cos)) of heads >= 1 heads.")
	ropeArgs(f)
	f.Go("LSL $2, %v, %v", ropeN, ropeHalf)
	f.Sweep(ropeN, 1, map[neon.R]int{ropeX: 4, ropeCos: 4, ropeSin: 4}, func(s neon.Step) {
		const c, si, a, b, t, u = neon.V(0), neon.V(1), neon.V(2), neon.V(3), neon.V(4), neon.V(5)
		s.Load(4, ropeCos, c)
		s.Load(4, ropeSin, si)
		overHeads(f, func() {
			f.Go("ADD %v, %v, %v", ropeHalf, ropeHead, ropeSecond)
			s.Load(4, ropeHead, a)
			s.Load(4, ropeSecond, b)
			f.FMUL(neon.S4, t, a, c)
			f.FMUL(neon.S4, u, b, c)
			f.FMLS(neon.S4, t, b, si)
			f.FMLA(neon.S4, u, a, si)
			s.Store(4, t, ropeHead)
			s.Store(4, u, ropeSecond)
		})
	})
	f.Go("RET")
}

func ropePairs(out *neon.File) {
	f := out.Func("ropePairsNEON", "(x []float32, heads, headDim int, cos, sin []float32)",
		"turns channels (2i, 2i+1) of heads >= 1 heads.")
	ropeArgs(f)
	const c, si, v, swapped, minus = neon.V(0), neon.V(1), neon.V(2), neon.V(3), neon.V(31)
	f.Floats(1, minus)
	f.Floats(-1, v)
	f.ZIP1(neon.S4, minus, v, minus) // -1, 1, -1, 1
	// Four angles turn four pairs, two vectors; one turns half a vector.
	f.Sweep(ropeN, 1, map[neon.R]int{ropeX: 8, ropeCos: 4, ropeSin: 4}, func(s neon.Step) {
		for half := range max(1, s.Lanes/2) {
			bytes := min(8, 4*s.Lanes)
			f.Load(bytes, ropeCos, 8*half, c)
			f.Load(bytes, ropeSin, 8*half, si)
			f.ZIP1(neon.S4, c, c, c)
			f.ZIP1(neon.S4, si, si, si)
			f.FMUL(neon.S4, si, si, minus)
			overHeads(f, func() {
				f.Load(2*bytes, ropeHead, 16*half, v)
				f.REV64(neon.S4, swapped, v)
				f.FMUL(neon.S4, swapped, swapped, si)
				f.FMLA(neon.S4, swapped, v, c)
				f.Store(2*bytes, swapped, ropeHead, 16*half)
			})
		}
	})
	f.Go("RET")
}

// widen makes a loop over 16-bit numbers; wide widens the lower half of a register.
func widen(out *neon.File, name, what string, wide func(f *neon.Func, v neon.V)) {
	f := out.Func(name, "(dst []float32, src []byte)", "widens len(dst) numbers of "+what+".")
	const dst, src, n = neon.R(0), neon.R(1), neon.R(2)
	f.Arg("dst_base", dst)
	f.Arg("src_base", src)
	f.Arg("dst_len", n)
	f.Sweep(n, 4, map[neon.R]int{dst: 4, src: 2}, func(s neon.Step) {
		v := neon.V(s.U)
		s.Load(2, src, v)
		wide(f, v)
		s.Store(4, v, dst)
	})
	f.Go("RET")
}
