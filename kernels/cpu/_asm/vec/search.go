package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

const minusInf = 0xff800000

// maxNumber makes acc the larger of x and acc, acc where x is NaN: the
// instruction gives its last source where one is NaN.
func maxNumber(x, acc reg.VecVirtual) { VMAXPS(acc, x, acc) }

func largest(s lib.ISA) {
	s.Func("largest", "(x []float32) (max float32)", "is the largest number of x, minus infinity if there is none.")
	x, n := slice("x"), length("x")
	none := s.Load(lib.Words(minusInf))
	var acc [4]reg.VecVirtual
	for i := range acc {
		acc[i] = s.Vec()
		VMOVAPS(none, acc[i])
	}
	s.Sweep(n, 4, func(st lib.Step) {
		v := s.Vec()
		st.LoadOr(st.At(x, 4), none, v)
		maxNumber(v, acc[st.U])
	})
	VMAXPS(acc[1], acc[0], acc[0])
	VMAXPS(acc[3], acc[2], acc[2])
	VMAXPS(acc[2], acc[0], acc[0])
	s.MaxF32(acc[0])
	VMOVSS(acc[0].AsX(), lib.Address(Return("max")))
	lib.Finish()
}

func find(s lib.ISA) {
	s.Func("find", "(x []float32, v float32) (i int)", "is the first index of v in x, len(x) if it is not there.")
	x, n, all := slice("x"), length("x"), length("x")
	v := scalar(s, "v")
	nan := s.Load(lib.Words(0x7fc00000))
	found, bits := lib.NewLabel("found"), GP32()
	var at reg.Register
	s.Sweep(n, 1, func(st lib.Step) {
		at = st.Index()
		w := s.Vec()
		st.LoadOr(st.At(x, 4), nan, w)
		if s.Wide() {
			k := K()
			VCMPPS(U8(lib.Equal), v, w, k)
			KMOVW(k, bits)
		} else {
			VCMPPS(U8(lib.Equal), v, w, w)
			VMOVMSKPS(w, bits)
		}
		TESTL(bits, bits)
		JNZ(LabelRef(found))
	})
	Store(all, Return("i"))
	lib.Finish()
	Label(found)
	BSFL(bits, bits)
	ADDQ(bits.As64(), at)
	Store(at, Return("i"))
	lib.Finish()
}

func groupMax(s lib.ISA) {
	s.Func("groupMax", "(dst, x []float32)",
		"does dst[16r+j] = the largest number of x[256r+16i+j] over i < 16, for len(x)/256 runs r.")
	dst, x, n := slice("dst"), slice("x"), length("x")
	none := s.Load(lib.Words(minusInf))
	loop, done := lib.NewLabel("runs"), lib.NewLabel("done")
	parts := 16 / s.Lanes()
	Label(loop)
	SUBQ(U32(256), n)
	JL(LabelRef(done))
	var acc [4]reg.VecVirtual
	for i := range acc {
		acc[i] = s.Vec()
		VMOVAPS(none, acc[i])
	}
	for i := range 16 * parts {
		v := s.Load(Mem{Base: x, Disp: i * s.Bytes})
		maxNumber(v, acc[i%4])
	}
	for i := 3; i >= parts; i-- {
		VMAXPS(acc[i], acc[i-parts], acc[i-parts])
	}
	for i := range parts {
		VMOVUPS(acc[i], Mem{Base: dst, Disp: i * s.Bytes})
	}
	ADDQ(U32(1024), x)
	ADDQ(U32(64), dst)
	JMP(LabelRef(loop))
	Label(done)
	lib.Finish()
}
