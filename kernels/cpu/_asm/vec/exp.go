package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

// smallest is where exp stops: the exponent of what is below would be
// subnormal.
const smallest = -87.33

// magic added to a number below 2^22 leaves its nearest integer in the low bits.
const magic = 1.5 * (1 << 23)

// exp makes a new register with exp(y) for smallest <= y <= 0 (else rubbish); it
// changes y. The polynomial is that of Cephes' expf (Moshier), good to about
// 1e-7.
func exp(s lib.ISA, y reg.VecVirtual) reg.VecVirtual {
	t, n, p := s.Broadcast(1.44269504), s.Vec(), s.Vec()
	VFMADD213PS(lib.Floats(magic), y, t) // the low bits are the exponent
	VSUBPS(lib.Floats(magic), t, n)
	VFNMADD231PS(lib.Floats(0.693359375), n, y)
	VFNMADD231PS(lib.Floats(-2.12194440e-4), n, y)
	VMOVUPS(lib.Floats(1.9875691500e-4), p)
	for _, c := range []float32{1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1} {
		VFMADD213PS(lib.Floats(c), y, p)
	}
	VMULPS(y, y, n)
	VFMADD213PS(y, n, p)
	VADDPS(lib.Floats(1), p, p)
	VPSLLD(U8(23), t, t)
	VPADDD(t, p, p)
	return p
}

func swiGLU(s lib.ISA) {
	s.Func("swiGLU", "(gate, up []float32)", "does gate = gate/(1+exp(-gate))·up for len(gate) elements.")
	gate, up, n := slice("gate"), slice("up"), length("gate")
	s.Sweep(n, 2, func(st lib.Step) {
		g, u, y := s.Vec(), s.Vec(), s.Vec()
		st.Load(st.At(gate, 4), g)
		st.Load(st.At(up, 4), u)
		// With e = exp(-|g|) the sigmoid is 1/(1+e) or e/(1+e), and nothing overflows.
		VORPS(lib.Words(1<<31), g, y)
		kept := s.Vec()
		VMOVAPS(y, kept)
		e := exp(s, y)
		s.KeepIf(lib.GreaterEqual, kept, lib.Floats(smallest), e)
		one, num := s.Load(lib.Floats(1)), s.Vec()
		if s.Wide() {
			k := K()
			VPMOVD2M(g, k)
			VBLENDMPS(e, one, k, num)
		} else {
			VBLENDVPS(g, e, one, num)
		}
		VADDPS(one, e, e)
		VDIVPS(e, num, num)
		VMULPS(g, num, num)
		VMULPS(u, num, num)
		st.Store(num, st.At(gate, 4))
	})
	lib.Finish()
}

func expSum(s lib.ISA) {
	s.Func("expSum", "(dst, x []float32, shift, factor float32) (sum float64)",
		"does dst = exp((x-shift)·factor) for len(x) elements and sums it up in lanes of float64.")
	dst, x, n := slice("dst"), slice("x"), length("x")
	shift, factor := scalar(s, "shift"), scalar(s, "factor")
	var sums [4]reg.VecVirtual
	for i := range sums {
		sums[i] = s.Zero()
	}
	beyond := s.Load(lib.Words(0xff800000))
	s.Sweep(n, 2, func(st lib.Step) {
		y, kept := s.Vec(), s.Vec()
		if st.Tail() {
			st.LoadOr(st.At(x, 4), beyond, y)
			VSUBPS(shift, y, y)
		} else {
			st.Load(st.At(x, 4), y)
			VSUBPS(shift, y, y)
		}
		VMULPS(factor, y, y)
		VMOVAPS(y, kept)
		e := exp(s, y)
		s.KeepIf(lib.GreaterEqual, kept, lib.Floats(smallest), e)
		st.Store(e, st.At(dst, 4))
		lo, hi := s.SplitF64(e)
		VADDPD(lo, sums[2*st.U], sums[2*st.U])
		VADDPD(hi, sums[2*st.U+1], sums[2*st.U+1])
	})
	VADDPD(sums[1], sums[0], sums[0])
	VADDPD(sums[3], sums[2], sums[2])
	VADDPD(sums[2], sums[0], sums[0])
	s.SumF64(sums[0])
	VMOVSD(sums[0].AsX(), lib.Address(Return("sum")))
	lib.Finish()
}
