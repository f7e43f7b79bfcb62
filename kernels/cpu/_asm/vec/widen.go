package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

func widenF16(s lib.ISA) {
	widen(s, "widenF16", "float16", func(from Op, v reg.VecVirtual) { VCVTPH2PS(from, v) },
		func(from, v reg.VecVirtual) { VCVTPH2PS(from.AsX(), v.AsX()) })
}

func widenBF16(s lib.ISA) {
	wide := func(from Op, v reg.VecVirtual) {
		VPMOVZXWD(from, v)
		VPSLLD(U8(16), v, v)
	}
	widen(s, "widenBF16", "bfloat16", wide, func(from, v reg.VecVirtual) { VPSLLD(U8(16), from.AsX(), v.AsX()) })
}

// widen makes a loop over 16-bit numbers; one widens the lowest lane of a
// register.
func widen(s lib.ISA, name, what string, wide func(Op, reg.VecVirtual), one func(from, v reg.VecVirtual)) {
	s.Func(name, "(dst []float32, src []byte)", "widens len(dst) numbers of "+what+".")
	dst, src, n := slice("dst"), slice("src"), length("dst")
	s.Sweep(n, 4, func(st lib.Step) {
		v := s.Vec()
		switch {
		case !st.Tail():
			wide(st.At(src, 2), v)
			st.Store(v, st.At(dst, 4))
		case s.Wide():
			t := YMM()
			VMOVDQU16_Z(st.At(src, 2), st.Mask(), t)
			wide(t, v)
			st.Store(v, st.At(dst, 4))
		default:
			each := lib.NewLabel("each")
			x, i, bits := XMM(), st.Index(), GP32()
			Label(each)
			MOVWLZX(st.At(src, 2), bits)
			VMOVD(bits, x)
			one(x, v)
			VMOVSS(v.AsX(), st.At(dst, 4))
			INCQ(i)
			DECQ(n)
			JNZ(LabelRef(each))
		}
	})
	lib.Finish()
}
