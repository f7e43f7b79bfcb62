// Command fused generates the assembly of package kernels/cpu/fused.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

// The page's constants, as package fused has them.
const (
	tokens = 64 // of a page
	group  = 64 // channels that share a scale
)

func main() {
	ConstraintExpr("!purego")
	masks, shrink := constants()
	for _, v := range []rows.Vec{{}, {Wide: true}} {
		for _, bits := range []int{4, 8} {
			for _, nq := range []int{4, 2, 1} {
				g := &gen{Vec: v, bits: bits, nq: nq, masks: masks, shrink: shrink}
				g.qk()
				g.pv()
			}
		}
	}
	fold(4)
	fold(8)
	kivi()
	lib.Fetch()
	Generate()
}

// constants are the masks of the nibbles 2m of a word, at 64·m (a nibble stays
// where it is: its value is 256^m times the code), and 256^-m at 4·m.
func constants() (masks, shrink Mem) {
	masks = GLOBL("masks", RODATA|NOPTR)
	for m := range 4 {
		for i := range 16 {
			DATA(64*m+4*i, U32(0x0f<<(8*m)))
		}
	}
	shrink = GLOBL("shrink", RODATA|NOPTR)
	for m := range 4 {
		DATA(4*m, F32(1/float64(int64(1)<<(8*m))))
	}
	return masks, shrink
}

// gen is one pair of functions being generated.
type gen struct {
	rows.Vec
	bits, nq      int
	masks, shrink Mem
}

func (g *gen) name(kind string) string {
	return fmt.Sprintf("%s%dInt%d%s", kind, g.nq, g.bits, g.Name())
}

func (g *gen) and(word reg.VecPhysical, m int, to reg.VecPhysical) {
	if g.Wide {
		VPANDD(g.masks.Offset(64*m), word, to)
		return
	}
	VPAND(g.masks.Offset(64*m), word, to)
}

// fold generates the folding of a group's scales into the weights of n vectors.
func fold(bits int) {
	name := fmt.Sprintf("foldInt%dAVX2", bits)
	rows.Begin(name, name+" folds a group's scales into n vectors' weights, and sums their products with its zeros.",
		"func(dst, sums, w *float32, ld int, scales, zeros *byte, n int)")
	dst, sums, w, ld := rows.Arg("dst"), rows.Arg("sums"), rows.Arg("w"), rows.Arg("ld")
	SHLQ(Imm(2), ld)
	scales, zeros, n := rows.Arg("scales"), rows.Arg("zeros"), rows.Arg("n")
	Label("vectors")
	sum, x, s := reg.Y0, reg.Y1, reg.Y2
	VXORPS(sum, sum, sum)
	for t := 0; t < tokens; t += 8 {
		VMOVUPS(Mem{Base: w, Disp: 4 * t}, x)
		VCVTPH2PS(Mem{Base: scales, Disp: 2 * t}, s)
		VMULPS(x, s, s)
		VMOVUPS(s, Mem{Base: dst, Disp: 4 * t})
		if bits == 4 {
			VCVTPH2PS(Mem{Base: zeros, Disp: 2 * t}, s)
			VFMADD231PS(x, s, sum)
		}
	}
	if bits == 4 {
		v := rows.Vec{}
		VMOVSS(v.Reduce4(sum, sum, sum, sum, [4]reg.VecPhysical{reg.Y3, reg.Y4, reg.Y5, reg.Y6}), Mem{Base: sums})
	} else {
		VMOVSS(sum.AsX(), Mem{Base: sums})
	}
	ADDQ(I32(4*tokens), dst)
	ADDQ(Imm(4), sums)
	ADDQ(ld, w)
	DECQ(n)
	JNZ(LabelRef("vectors"))
	rows.End()
}
