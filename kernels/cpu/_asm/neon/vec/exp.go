package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

// smallest is where exp stops: the exponent of what is below would be
// subnormal.
const smallest = -87.33

// expConstants sets V16 to V26 for exp.
func expConstants(f *neon.Func) {
	for i, c := range []float32{
		1.44269504, 1.5 * (1 << 23), 0.693359375, -2.12194440e-4, // log2 e, what rounds a sum, ln 2 in two parts
		1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1,
	} {
		f.Floats(c, neon.V(16+i))
	}
	f.Floats(smallest, 27)
}

// exp makes y exp(y), and 0 where not y >= smallest; for y <= 0. It changes t, n,
// p and kept. The polynomial is that of Cephes' expf (Moshier), good to about
// 1e-7.
func exp(f *neon.Func, y, t, n, p, kept neon.V) {
	s4 := neon.S4
	f.FCMGE(s4, kept, y, 27)
	f.MOV(t, 17)
	f.FMLA(s4, t, y, 16) // the low bits are the exponent
	f.FSUB(s4, n, t, 17)
	f.FMLS(s4, y, n, 18)
	f.FMLS(s4, y, n, 19)
	f.MOV(p, 20)
	for c := neon.V(21); c <= 25; c++ {
		f.MOV(n, c)
		f.FMLA(s4, n, p, y)
		p, n = n, p
	}
	f.FMUL(s4, n, y, y)
	f.FMLA(s4, y, p, n)
	f.FADD(s4, y, y, 26)
	f.SHL(s4, t, t, 23)
	f.ADD(s4, y, y, t)
	f.AND(y, y, kept)
}

func swiGLU(out *neon.File) {
	f := out.Func("swiGLUNEON", "(gate, up []float32)", "does gate = gate/(1+exp(-gate))·up for len(gate) elements.")
	const gate, up, n, one = neon.R(0), neon.R(1), neon.R(2), neon.V(26)
	f.Arg("gate_base", gate)
	f.Arg("up_base", up)
	f.Arg("gate_len", n)
	expConstants(f)
	f.Sweep(n, 2, map[neon.R]int{gate: 4, up: 4}, func(s neon.Step) {
		base := neon.V(8 * s.U)
		g, u, e, num := base, base+1, base+2, base+3
		s.Load(4, gate, g)
		s.Load(4, up, u)
		// With e = exp(-|g|) the sigmoid is 1/(1+e) or e/(1+e), and nothing overflows.
		f.FABS(neon.S4, e, g)
		f.FNEG(neon.S4, e, e)
		exp(f, e, base+4, base+5, base+6, base+7)
		f.SSHR(neon.S4, num, g, 31)
		f.BSL(num, e, one)
		f.FADD(neon.S4, e, e, one)
		f.FDIV(neon.S4, num, num, e)
		f.FMUL(neon.S4, num, num, g)
		f.FMUL(neon.S4, num, num, u)
		s.Store(4, num, gate)
	})
	f.Go("RET")
}

func expSum(out *neon.File) {
	f := out.Func("expSumNEON", "(dst, x []float32, shift, factor float32) (sum float64)",
		"does dst = exp((x-shift)·factor) for len(x) elements and sums it up in lanes of float64.")
	const dst, x, n, shift, factor, first = neon.R(0), neon.R(1), neon.R(2), neon.V(28), neon.V(29), neon.V(30)
	f.Arg("dst_base", dst)
	f.Arg("x_base", x)
	f.Arg("x_len", n)
	f.Scalar("shift", shift)
	f.Scalar("factor", factor)
	expConstants(f)
	f.Zero(0, 1, 2, 3)
	f.Words(0xffffffff, first)
	f.EXT(first, first, 0, 12)
	f.Sweep(n, 2, map[neon.R]int{dst: 4, x: 4}, func(s neon.Step) {
		const y, lo, hi = neon.V(4), neon.V(5), neon.V(6)
		s.Load(4, x, y)
		f.FSUB(neon.S4, y, y, shift)
		f.FMUL(neon.S4, y, y, factor)
		exp(f, y, 5, 6, 7, 8)
		s.Store(4, y, dst)
		if s.Lanes == 1 {
			f.AND(y, y, first) // the other lanes are exponentials too
		}
		f.FCVTL(neon.D2, lo, y, false)
		f.FCVTL(neon.D2, hi, y, true)
		f.FADD(neon.D2, neon.V(2*s.U), neon.V(2*s.U), lo)
		f.FADD(neon.D2, neon.V(2*s.U+1), neon.V(2*s.U+1), hi)
	})
	sumOfLanes(f)
	f.FResult("sum", 0)
	f.Go("RET")
}
