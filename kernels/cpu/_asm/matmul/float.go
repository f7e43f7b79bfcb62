package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func elemBytes(dtype string) int {
	if dtype == "F32" {
		return 4
	}
	return 2
}

// load widens a register's worth of weights.
func (i isa) load(dtype string, m Mem, to reg.VecPhysical) {
	switch dtype {
	case "F32":
		VMOVUPS(m, to)
	case "BF16":
		VPMOVZXWD(m, to)
		VPSLLD(Imm(16), to, to)
	case "F16":
		VCVTPH2PS(m, to)
	}
}

// floatTile multiplies m rows by a panel of plain weights: one chain of fused
// multiply-adds per output, in the order of k, whatever m is.
func floatTile(i isa, dtype string, m int, pair bool) {
	parts := 1
	if i.name == "AVX2" && m > 3 {
		parts = 2
	}
	t := i.start(dtype, m, parts, pair, "n steps of k of "+dtype+" weights")
	t.loadSums()
	unroll := max(1, 8/m)
	if unroll > 1 {
		SUBQ(Imm(uint64(unroll)), t.n)
		JLT(LabelRef("tail"))
		Label("loop")
		t.floatSteps(dtype, unroll)
		SUBQ(Imm(uint64(unroll)), t.n)
		JGE(LabelRef("loop"))
		Label("tail")
		ADDQ(Imm(uint64(unroll)), t.n)
		JE(LabelRef("done"))
	}
	Label("one")
	t.floatSteps(dtype, 1)
	DECQ(t.n)
	JNE(LabelRef("one"))
	Label("done")
	t.finish()
}

// floatSteps is n steps of k.
func (t *tile) floatSteps(dtype string, n int) {
	size := elemBytes(dtype)
	free := t.vec[t.m*t.v:]
	for k := range n {
		w := func(v int) Mem { return t.at(t.w, k*panel*size, v, size) }
		x := func(r int) Mem { return Mem{Base: t.x, Disp: 4 * (k*t.m + r)} }
		if t.v > 2 { // few rows: keep them, stream the weights
			for r := range t.m {
				VBROADCASTSS(x(r), free[r])
			}
			for v := range t.v {
				b := free[t.m+v%(len(free)-t.m)]
				t.load(dtype, w(v), b)
				for r := range t.m {
					VFMADD231PS(b, free[r], t.sum(r, v))
				}
			}
			continue
		}
		for v := range t.v {
			t.load(dtype, w(v), free[v])
		}
		rows := free[t.v:]
		for r := range t.m {
			VBROADCASTSS(x(r), rows[r%len(rows)])
			for v := range t.v {
				VFMADD231PS(free[v], rows[r%len(rows)], t.sum(r, v))
			}
		}
	}
	advance(t.w, n*panel*size)
	advance(t.x, n*4*t.m)
}

// widen turns n elements (a multiple of 32) into float32, for tiles that pass
// over the same weights many times.
func widen(i isa, dtype string) {
	TEXT("widen"+dtype+i.name, NOSPLIT, "func(dst *float32, src *byte, n int)")
	Pragma("noescape")
	Doc("widen" + dtype + i.name + " widens n elements, a multiple of 32.")
	dst, src, n := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("n"), GP64())
	Label("loop")
	for v := range panel / i.lanes() {
		i.load(dtype, Mem{Base: src, Disp: 2 * v * i.lanes()}, i.vec[v])
	}
	for v := range panel / i.lanes() {
		VMOVUPS(i.vec[v], Mem{Base: dst, Disp: 4 * v * i.lanes()})
	}
	advance(src, 2*panel)
	advance(dst, 4*panel)
	SUBQ(Imm(panel), n)
	JG(LabelRef("loop"))
	VZEROUPPER()
	RET()
}
