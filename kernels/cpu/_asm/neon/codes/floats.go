package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

// The layout of the package's Merge, in bytes; a test compares.
const (
	mergeAlpha  = 0
	mergeScale  = 16
	mergeCentre = 32
	mergeSum    = 48
	mergeLowSum = 64
)

// merge merges vector by vector, 8 channels at a time.
func merge(file *neon.File) {
	f := file.Func("mergeNEON", "(m, out *float32, sums, low *int32, nq, stride, width, n int)", "is Kernels.Merge; low is nil without second planes.")
	const (
		m, out, sums, low    = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
		nq, stride, width, n = neon.R(4), neon.R(5), neon.R(6), neon.R(7)
		o, s, l, left        = neon.R(8), neon.R(9), neon.R(10), neon.R(11)
		t, u                 = neon.R(12), neon.R(13)

		alpha, step, centre, middle, eighth = neon.V(16), neon.V(17), neon.V(18), neon.V(19), neon.V(20)
	)
	for i, name := range []string{"m", "out", "sums", "low", "nq", "stride", "width", "n"} {
		f.Arg(name, m+neon.R(i))
	}
	f.Floats(0.125, eighth)
	vector, channels, only := f.NewLabel("vector"), f.NewLabel("channels"), f.NewLabel("only")
	f.Label(vector)
	f.Spread(m, mergeAlpha, alpha)
	f.Spread(m, mergeScale, step)
	f.FMUL(neon.S4, step, step, eighth)
	f.Spread(m, mergeCentre, centre)
	f.Go("MOVW %d(%v), %v", mergeSum, m, t)
	f.Go("MOVW %d(%v), %v", mergeLowSum, m, u)
	f.Go("ADD %v<<2, %v", t, u) // 3·(4·Σ + low Σ)
	f.Go("ADD %v<<1, %v", u, u)
	f.Go("VDUP %v, V%d.S4", u, middle)
	f.Go("MOVD %v, %v", out, o)
	f.Go("MOVD %v, %v", sums, s)
	f.Go("MOVD %v, %v", low, l)
	f.Go("MOVD %v, %v", n, left)
	f.Label(channels)
	const x = neon.V(0) // and V1
	for i := range neon.V(2) {
		f.Load(16, s, 16*int(i), x+i)
		f.SHL(neon.S4, x+i, x+i, 3)
	}
	f.Go("CBZ %v, %s", low, only)
	for i := range neon.V(2) {
		f.Load(16, l, 16*int(i), 2+i)
		f.SHL(neon.S4, 2+i, 2+i, 1)
		f.ADD(neon.S4, x+i, x+i, 2+i)
	}
	f.Go("ADD $32, %v", l)
	f.Label(only)
	for i := range neon.V(2) {
		f.SUB(neon.S4, x+i, x+i, middle)
		f.SCVTF(neon.S4, x+i, x+i)
		f.Load(16, o, 16*int(i), 2+i)
		f.MOV(4+i, centre)
		f.FMLA(neon.S4, 4+i, x+i, step)
		f.FMLA(neon.S4, 4+i, 2+i, alpha)
		f.Store(16, 4+i, o, 16*int(i))
	}
	f.Go("ADD $32, %v", s)
	f.Go("ADD $32, %v", o)
	f.Repeat(channels, 8, left)
	f.Go("ADD $4, %v", m)
	f.Go("ADD %v<<2, %v", stride, out)
	f.Go("ADD %v<<2, %v", width, sums)
	alone := f.NewLabel("alone")
	f.Go("CBZ %v, %s", low, alone)
	f.Go("ADD %v<<2, %v", width, low)
	f.Label(alone)
	f.Repeat(vector, 1, nq)
	f.Go("RET")
}

func maxAbs(file *neon.File) {
	f := file.Func("maxAbsNEON", "(x *float32, n int) (top float32)", "is Kernels.MaxAbs.")
	const x, n = neon.R(0), neon.R(1)
	f.Arg("x", x)
	f.Arg("n", n)
	f.Zero(0, 1)
	loop := f.NewLabel("loop")
	f.Label(loop)
	for i := range neon.V(2) { // NaN is not greater
		f.Load(16, x, 16*int(i), 2+i)
		f.FABS(neon.S4, 2+i, 2+i)
		f.FCMGT(neon.S4, 4+i, 2+i, i)
		f.BIT(i, 2+i, 4+i)
	}
	f.Go("ADD $32, %v", x)
	f.Repeat(loop, 8, n)
	f.FMAX(neon.S4, 0, 0, 1)
	f.FMAXV(0, 0)
	f.FResult("top", 0)
	f.Go("RET")
}

func quantise(file *neon.File) {
	f := file.Func("quantiseNEON", "(codes *int8, x *float32, n int, inv float32) (sum int)", "is Kernels.Quantise.")
	const (
		codes, x, n = neon.R(0), neon.R(1), neon.R(2)

		inv, least, most, half, offset, sum = neon.V(16), neon.V(17), neon.V(18), neon.V(19), neon.V(20), neon.V(21)
	)
	f.Arg("codes", codes)
	f.Arg("x", x)
	f.Arg("n", n)
	f.Scalar("inv", inv)
	f.Floats(-127, least)
	f.Floats(127, most)
	f.Floats(128.5, half)
	f.Words(128, offset)
	f.Zero(sum)
	loop := f.NewLabel("loop")
	f.Label(loop)
	for y := range neon.V(2) {
		f.Load(16, x, 16*int(y), y)
		f.FMUL(neon.S4, y, y, inv)
		f.FCMGT(neon.S4, 2, y, least) // NaN: the least
		f.BIF(y, least, 2)
		f.FMIN(neon.S4, y, y, most)
		f.FADD(neon.S4, y, y, half)
		f.FCVTZS(neon.S4, y, y)
		f.SUB(neon.S4, y, y, offset)
		f.ADD(neon.S4, sum, sum, y)
	}
	f.XTN(neon.S4, 0, 0, false)
	f.XTN(neon.S4, 0, 1, true)
	f.XTN(neon.H8, 0, 0, false)
	f.Store(8, 0, codes, 0)
	f.Go("ADD $32, %v", x)
	f.Go("ADD $8, %v", codes)
	f.Repeat(loop, 8, n)
	f.ADDV(sum, sum)
	f.Go("VMOV V%d.S[0], %v", sum, n)
	f.Go("SXTW %v, %v", n, n)
	f.Result("sum", n)
	f.Go("RET")
}

func widen(file *neon.File) {
	f := file.Func("widenNEON", "(step, bias *float32, scale, zero *byte, n int, set int, factors *float32)", "is Kernels.KeyScales and ValueScales; zero is nil in symmetric formats.")
	const (
		step, bias, scale, zero = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
		n, set, factors         = neon.R(4), neon.R(5), neon.R(6)

		first, lane, in, s, k, m = neon.V(16), neon.V(20), neon.V(0), neon.V(1), neon.V(2), neon.V(3)
	)
	for i, name := range []string{"step", "bias", "scale", "zero", "n", "set", "factors"} {
		f.Arg(name, step+neon.R(i))
	}
	for i := range 4 { // step and middle of tokens without and with the second plane
		f.Spread(factors, 4*i, first+neon.V(i))
	}
	for i := range 2 {
		f.Go("MOVD $%#x, %v", 2<<(2*i)<<32|1<<(2*i), factors)
		f.Go("VMOV %v, V%d.D[%d]", factors, lane, i)
	}
	loop, symmetric := f.NewLabel("loop"), f.NewLabel("symmetric")
	f.Label(loop)
	f.Go("VDUP %v, V%d.S4", set, in)
	f.Go("LSR $4, %v", set)
	f.CMTST(neon.S4, in, in, lane)
	f.Load(8, scale, 0, s)
	f.FCVTL(neon.S4, s, s, false)
	f.MOV(k, in)
	f.BSL(k, first+1, first)
	f.MOV(m, in)
	f.BSL(m, first+3, first+2)
	f.FMUL(neon.S4, k, k, s)
	f.FMUL(neon.S4, m, m, s)
	f.Go("CBZ %v, %s", zero, symmetric)
	f.Load(8, zero, 0, s)
	f.FCVTL(neon.S4, s, s, false)
	f.FADD(neon.S4, m, m, s)
	f.Go("ADD $8, %v", zero)
	f.Label(symmetric)
	f.Store(16, k, step, 0)
	f.Store(16, m, bias, 0)
	f.Go("ADD $8, %v", scale)
	f.Go("ADD $16, %v", step)
	f.Go("ADD $16, %v", bias)
	f.Repeat(loop, 4, n)
	f.Go("RET")
}
