package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

// loop repeats body for every step elements of n, a positive multiple of them.
func loop(f *neon.Func, n neon.R, step int, body func()) {
	l := f.NewLabel("loop")
	f.Label(l)
	body()
	f.Repeat(l, step, n)
}

// arguments loads them into R0 and on.
func arguments(f *neon.Func, names ...string) {
	for i, name := range names {
		f.Arg(name, neon.R(i))
	}
}

// wide loads four float64s to v and v+1 and moves p behind them; wideStore stores
// them.
func wide(f *neon.Func, p neon.R, v neon.V) {
	f.Go("VLD1.P 32(%v), [V%d.D2, V%d.D2]", p, v, v+1)
}

func wideStore(f *neon.Func, v neon.V, p neon.R) {
	f.Go("VST1.P [V%d.D2, V%d.D2], 32(%v)", v, v+1, p)
}

// both does op for the two registers of four float64s.
func both(op func(a neon.Arr, d, n, m neon.V), d, n, m neon.V) {
	op(neon.D2, d, n, m)
	op(neon.D2, d+1, n+1, m+1)
}

// by multiplies v and v+1 with a register.
func by(f *neon.Func, v, factor neon.V) {
	f.FMUL(neon.D2, v, v, factor)
	f.FMUL(neon.D2, v+1, v+1, factor)
}

// toFloat64 converts the int32s of v to v and v+1.
func toFloat64(f *neon.Func, v neon.V) {
	f.SXTL(neon.D2, v+1, v, true)
	f.SXTL(neon.D2, v, v, false)
	f.SCVTF(neon.D2, v, v)
	f.SCVTF(neon.D2, v+1, v+1)
}

// doubled converts the float32s of v to v and v+1.
func doubled(f *neon.Func, v neon.V) {
	f.FCVTL(neon.D2, v+1, v, true)
	f.FCVTL(neon.D2, v, v, false)
}

func affine(file *neon.File) {
	f := file.Func("affineNEON", "(acc *float64, dots *int32, scale, mins, sums *float64, x, y, z float64, n int)",
		"is Kernels.Affine for n elements, a positive multiple of four.")
	const acc, dots, scale, mins, sums, n, x, y, z = neon.R(0), neon.R(1), neon.R(2), neon.R(3), neon.R(4), neon.R(5), neon.V(29), neon.V(30), neon.V(31)
	arguments(f, "acc", "dots", "scale", "mins", "sums", "n")
	f.Scalar("x", x)
	f.Scalar("y", y)
	f.Scalar("z", z)
	loop(f, n, 4, func() {
		f.Go("VLD1.P 16(%v), [V0.S4]", dots)
		toFloat64(f, 0)
		wide(f, sums, 2)
		wide(f, scale, 4)
		wide(f, mins, 6)
		by(f, 0, x)
		by(f, 2, y)
		both(f.FADD, 0, 0, 2)
		both(f.FMUL, 0, 0, 4)
		by(f, 6, z)
		both(f.FADD, 0, 0, 6)
		f.Load(16, acc, 0, 2)
		f.Load(16, acc, 16, 3)
		both(f.FADD, 0, 0, 2)
		wideStore(f, 0, acc)
	})
	f.Go("RET")
}

func blend(file *neon.File) {
	f := file.Func("blendNEON", "(acc, v *float64, a, b float64, n int)", "is Kernels.Blend for n elements, a positive multiple of four.")
	const acc, v, n, a, b = neon.R(0), neon.R(1), neon.R(2), neon.V(30), neon.V(31)
	arguments(f, "acc", "v", "n")
	f.Scalar("a", a)
	f.Scalar("b", b)
	loop(f, n, 4, func() {
		f.Load(16, acc, 0, 0)
		f.Load(16, acc, 16, 1)
		wide(f, v, 2)
		by(f, 0, a)
		by(f, 2, b)
		both(f.FADD, 0, 0, 2)
		wideStore(f, 0, acc)
	})
	f.Go("RET")
}

// widens generates the widening of numbers of some bytes to float64; convert
// leaves four of them in V0 and V1.
func widens(file *neon.File) {
	widen := func(name, what string, bytes int, convert func(f *neon.Func)) {
		f := file.Func(name, "(dst *float64, src *byte, n int)", "widens n "+what+" to float64, a positive multiple of four.")
		const dst, src, n = neon.R(0), neon.R(1), neon.R(2)
		arguments(f, "dst", "src", "n")
		loop(f, n, 4, func() {
			f.Load(4*bytes, src, 0, 0)
			f.Go("ADD $%d, %v", 4*bytes, src)
			convert(f)
			wideStore(f, 0, dst)
		})
		f.Go("RET")
	}
	widen("widenF16NEON", "float16s", 2, func(f *neon.Func) {
		f.FCVTL(neon.S4, 0, 0, false)
		doubled(f, 0)
	})
	widen("widenBF16NEON", "bfloat16s", 2, func(f *neon.Func) {
		f.SHLL16(0, 0, false)
		doubled(f, 0)
	})
	widen("widenU8NEON", "bytes", 1, func(f *neon.Func) {
		f.UXTL(neon.H8, 0, 0, false)
		f.UXTL(neon.S4, 0, 0, false)
		toFloat64(f, 0)
	})
	widen("widenU16NEON", "uint16s", 2, func(f *neon.Func) {
		f.UXTL(neon.S4, 0, 0, false)
		toFloat64(f, 0)
	})
}

func split(file *neon.File) {
	f := file.Func("splitNEON", "(a, b, src *float64, n int)", "parts n pairs, a positive multiple of four: even elements to a, odd ones to b.")
	const a, b, src, n = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
	arguments(f, "a", "b", "src", "n")
	loop(f, n, 4, func() {
		wide(f, src, 0)
		wide(f, src, 2)
		for i := range neon.V(2) {
			f.ZIP1(neon.D2, 4+i, 2*i, 2*i+1)
			f.ZIP2(neon.D2, 6+i, 2*i, 2*i+1)
		}
		wideStore(f, 4, a)
		wideStore(f, 6, b)
	})
	f.Go("RET")
}

func narrow(file *neon.File) {
	f := file.Func("narrowNEON", "(dst *float32, src *float64, n int)", "rounds n float64s, a positive multiple of four.")
	const dst, src, n = neon.R(0), neon.R(1), neon.R(2)
	arguments(f, "dst", "src", "n")
	loop(f, n, 4, func() {
		wide(f, src, 0)
		rounded(f, 2, 0)
		f.Go("VST1.P [V2.S4], 16(%v)", dst)
	})
	f.Go("RET")
}

// rounded makes d the float32s of n and n+1.
func rounded(f *neon.Func, d, n neon.V) {
	f.FCVTN(neon.D2, d, n, false)
	f.FCVTN(neon.D2, d, n+1, true)
}

// extremes relies on the minimum and the maximum of NaN and anything being NaN.
func extremes(file *neon.File) {
	f := file.Func("extremesNEON", "(x *float32, n int) (lo, hi float32)", "is the least and the largest of n floats, a positive multiple of eight; NaN if one is.")
	const x, n, lo, hi = neon.R(0), neon.R(1), neon.V(0), neon.V(2)
	arguments(f, "x", "n")
	for i := range neon.V(2) {
		f.Load(16, x, 16*int(i), lo+i)
		f.MOV(hi+i, lo+i)
	}
	loop(f, n, 8, func() {
		f.Go("VLD1.P 32(%v), [V4.S4, V5.S4]", x)
		for i := range neon.V(2) {
			f.FMIN(neon.S4, lo+i, lo+i, 4+i)
			f.FMAX(neon.S4, hi+i, hi+i, 4+i)
		}
	})
	f.FMIN(neon.S4, lo, lo, lo+1)
	f.FMAX(neon.S4, hi, hi, hi+1)
	f.FMINV(lo, lo)
	f.FMAXV(hi, hi)
	f.FResult("lo", lo)
	f.FResult("hi", hi)
	f.Go("RET")
}

func nearest(file *neon.File) {
	f := file.Func("nearestNEON", "(codes *byte, x *float32, n int, lo, inv float32) (sum int)",
		"codes n floats, a positive multiple of 32: (x - lo)·inv to nearest, at most 255. It returns their sum.")
	const (
		codes, x, n = neon.R(0), neon.R(1), neon.R(2)

		lo, inv, top, half, zero, sum = neon.V(16), neon.V(17), neon.V(18), neon.V(19), neon.V(20), neon.V(21)
	)
	arguments(f, "codes", "x", "n")
	f.Scalar("lo", lo)
	f.Scalar("inv", inv)
	f.Floats(255, top)
	f.Floats(0.5, half)
	f.Zero(zero, sum)
	loop(f, n, 16, func() {
		f.Go("VLD1.P 64(%v), [V0.S4, V1.S4, V2.S4, V3.S4]", x)
		for y := range neon.V(4) {
			f.FSUB(neon.S4, y, y, lo)
			f.FMUL(neon.S4, y, y, inv)
			f.FMAX(neon.S4, y, y, zero)
			f.FMIN(neon.S4, y, y, top)
			f.FADD(neon.S4, y, y, half)
			f.FCVTZS(neon.S4, y, y) // NaN: 0
			f.ADD(neon.S4, sum, sum, y)
		}
		for y := neon.V(0); y < 4; y += 2 {
			f.XTN(neon.S4, y, y, false)
			f.XTN(neon.S4, y, y+1, true)
		}
		f.XTN(neon.H8, 0, 0, false)
		f.XTN(neon.H8, 0, 2, true)
		f.Go("VST1.P [V0.B16], 16(%v)", codes)
	})
	f.ADDV(sum, sum)
	f.Go("VMOV V%d.S[0], %v", sum, n)
	f.Result("sum", n)
	f.Go("RET")
}

// fold sums four lanes of float64.
func fold(file *neon.File) {
	f := file.Func("foldNEON", "(dst, x *float32, scale, mins *float64, n int) (sum float64)", "is Kernels.Fold for n elements, a positive multiple of four.")
	const dst, x, scale, mins, n, sum = neon.R(0), neon.R(1), neon.R(2), neon.R(3), neon.R(4), neon.V(30)
	arguments(f, "dst", "x", "scale", "mins", "n")
	f.Zero(sum, sum+1)
	loop(f, n, 4, func() {
		f.Go("VLD1.P 16(%v), [V0.S4]", x)
		wide(f, scale, 2)
		rounded(f, 4, 2)
		f.FMUL(neon.S4, 4, 4, 0)
		f.Go("VST1.P [V4.S4], 16(%v)", dst)
		doubled(f, 0)
		wide(f, mins, 2)
		both(f.FMUL, 0, 0, 2)
		both(f.FADD, sum, sum, 0)
	})
	f.FADD(neon.D2, sum, sum, sum+1)
	f.FADDP(neon.D2, sum, sum, sum)
	f.FResult("sum", sum)
	f.Go("RET")
}
