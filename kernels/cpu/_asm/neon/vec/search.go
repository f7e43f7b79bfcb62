package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

const minusInf = 0xff800000

// maxNumber makes acc the larger of x and acc, acc where x is NaN, by way of
// mask.
func maxNumber(f *neon.Func, x, acc, mask neon.V) {
	f.FCMGT(neon.S4, mask, x, acc)
	f.BIT(acc, x, mask)
}

func largest(out *neon.File) {
	f := out.Func("largestNEON", "(x []float32) (max float32)", "is the largest number of x, minus infinity if there is none.")
	const x, n, none = neon.R(0), neon.R(1), neon.V(31)
	f.Arg("x_base", x)
	f.Arg("x_len", n)
	f.Words(minusInf, none)
	for acc := range neon.V(4) {
		f.MOV(acc, none)
	}
	f.Sweep(n, 4, map[neon.R]int{x: 4}, func(s neon.Step) {
		acc := neon.V(s.U)
		v := acc + 4
		s.Load(4, x, v)
		if s.Lanes == 1 {
			f.DUP(neon.S4, v, v, 0)
		}
		maxNumber(f, v, acc, acc+8)
	})
	f.FMAX(neon.S4, 0, 0, 1)
	f.FMAX(neon.S4, 2, 2, 3)
	f.FMAX(neon.S4, 0, 0, 2)
	f.FMAXV(0, 0)
	f.FResult("max", 0)
	f.Go("RET")
}

func find(out *neon.File) {
	f := out.Func("findNEON", "(x []float32, v float32) (i int)", "is the first index of v in x, len(x) if it is not there.")
	const x, n, all, bits = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
	f.Arg("x_base", x)
	f.Arg("x_len", n)
	f.Arg("x_len", all)
	f.Scalar("v", 31)
	found := f.NewLabel("found")
	f.Sweep(n, 1, map[neon.R]int{x: 4}, func(s neon.Step) {
		s.Load(4, x, 0)
		f.FCMEQ(neon.S4, 0, 0, 31)
		if s.Lanes == 1 { // the others are 0, which may be what is looked for
			f.Go("FMOVS F0, %v", bits)
		} else {
			f.XTN(neon.S4, 0, 0, false)
			f.Go("FMOVD F0, %v", bits)
		}
		f.Go("CBNZ %v, %s", bits, found)
	})
	f.Result("i", all)
	f.Go("RET")
	f.Label(found) // 16 bits a lane
	f.Go("RBIT %v, %v", bits, bits)
	f.Go("CLZ %v, %v", bits, bits)
	f.Go("SUB %v, %v", n, all)
	f.Go("ADD %v>>4, %v", bits, all)
	f.Result("i", all)
	f.Go("RET")
}

func groupMax(out *neon.File) {
	f := out.Func("groupMaxNEON", "(dst, x []float32)",
		"does dst[16r+j] = the largest number of x[256r+16i+j] over i < 16, for len(x)/256 runs r.")
	const dst, x, n = neon.R(0), neon.R(1), neon.R(2)
	f.Arg("dst_base", dst)
	f.Arg("x_base", x)
	f.Arg("x_len", n)
	f.Words(minusInf, 31)
	loop, done := f.NewLabel("runs"), f.NewLabel("done")
	f.Label(loop)
	f.Go("SUBS $256, %v", n)
	f.Go("BLT %s", done)
	for acc := range neon.V(4) {
		f.MOV(acc, 31)
	}
	for i := range 64 {
		acc := neon.V(i % 4)
		f.Load(16, x, 16*i, acc+4)
		maxNumber(f, acc+4, acc, acc+8)
	}
	for i := range 4 {
		f.Store(16, neon.V(i), dst, 16*i)
	}
	f.Go("ADD $1024, %v", x)
	f.Go("ADD $64, %v", dst)
	f.Go("B %s", loop)
	f.Label(done)
	f.Go("RET")
}
