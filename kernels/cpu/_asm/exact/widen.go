package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

// widen converts blocks of 32 float16s.
func widen(v rows.Vec) {
	rows.Begin("widen"+v.Name(), "widen"+v.Name()+" converts n blocks of 32 float16s to float32.", "func(dst, src *byte, n int)")
	dst, src, n := GP64(), GP64(), GP64()
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("n"), n)
	Label("blocks")
	var at [4]reg.VecPhysical
	for i := range 32 / v.Lanes() {
		at[i] = v.Low(i)
		VCVTPH2PS(Mem{Base: src, Disp: 2 * v.Lanes() * i}, at[i])
	}
	for i := range 32 / v.Lanes() {
		VMOVUPS(at[i], Mem{Base: dst, Disp: 4 * v.Lanes() * i})
	}
	ADDQ(Imm(64), src)
	SUBQ(I8(-128), dst)
	DECQ(n)
	JNZ(LabelRef("blocks"))
	rows.End()
}
