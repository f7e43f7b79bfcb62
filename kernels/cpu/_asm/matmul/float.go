package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// bf16Upper is the register of AVX-512 that selects the upper half of a dword.
var bf16Upper = reg.Z31

// load widens vector v of step k of the weights at w.
func (t *tile) load(dtype string, k, v int, to reg.VecPhysical) {
	switch dtype {
	case "F32":
		VMOVUPS(t.at(t.w, k*panel*4, v, 4), to)
	case "F16":
		VCVTPH2PS(t.at(t.w, k*panel*2, v, 2), to)
	case "BF16": // dwords of an even step and the odd one after it
		t.loadBF16(t.at(t.w, k/2*panel*4, v, 4), k%2 == 1, to)
	}
}

func (t *tile) loadBF16(m Mem, odd bool, to reg.VecPhysical) {
	switch {
	case t.bytes == 64 && odd:
		VPANDD(m, bf16Upper, to)
	case t.bytes == 64:
		VPSLLD(Imm(16), m, to)
	case odd:
		VMOVDQU(m, to)
		VPAND(t.constant("upper", 0xffff0000ffff0000), to, to)
	default:
		VMOVDQU(m, to)
		VPSLLD(Imm(16), to, to)
	}
}

// weightBytes is the size of n steps of k of a panel.
func weightBytes(dtype string, n int) int {
	if dtype == "F32" {
		return n * panel * 4
	}
	return n * panel * 2
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
	runs := []int{max(1, 8/m), 1}
	if dtype == "BF16" { // a single step can only be the last
		if i.bytes == 64 {
			broadcast(0xffff0000, bf16Upper)
		}
		runs = []int{max(2, 8/m/2*2), 2, 1}
	}
	for at, run := range runs {
		if at > 0 && run == runs[at-1] {
			continue
		}
		next := fmt.Sprintf("fewer%d", run)
		SUBQ(Imm(uint64(run)), t.n)
		JLT(LabelRef(next))
		Label(fmt.Sprintf("steps%d", run))
		t.floatSteps(dtype, run)
		SUBQ(Imm(uint64(run)), t.n)
		JGE(LabelRef(fmt.Sprintf("steps%d", run)))
		Label(next)
		ADDQ(Imm(uint64(run)), t.n)
	}
	t.finish()
}

// floatSteps is n steps of k.
func (t *tile) floatSteps(dtype string, n int) {
	free := t.vec[t.m*t.v:]
	if dtype == "BF16" && t.bytes == 64 {
		free = free[:len(free)-1]
	}
	for k := range n {
		x := func(r int) Mem { return Mem{Base: t.x, Disp: 4 * (k*t.m + r)} }
		if t.v > 2 { // few rows: keep them, stream the weights
			for r := range t.m {
				VBROADCASTSS(x(r), free[r])
			}
			for v := range t.v {
				b := free[t.m+v%(len(free)-t.m)]
				t.load(dtype, k, v, b)
				for r := range t.m {
					VFMADD231PS(b, free[r], t.sum(r, v))
				}
			}
			continue
		}
		for v := range t.v {
			t.load(dtype, k, v, free[v])
		}
		rows := free[t.v:]
		for r := range t.m {
			VBROADCASTSS(x(r), rows[r%len(rows)])
			for v := range t.v {
				VFMADD231PS(free[v], rows[r%len(rows)], t.sum(r, v))
			}
		}
	}
	advance(t.w, weightBytes(dtype, n))
	advance(t.x, n*4*t.m)
}
