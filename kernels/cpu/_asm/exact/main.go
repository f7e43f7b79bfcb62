// Command exact generates the assembly of package kernels/cpu/exact.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

func main() {
	ConstraintExpr("!purego")
	half := rows.Rows{Name: "F16", Bytes: 2, Prefetch: true, Load: func(mem Mem, m reg.Register, to reg.VecPhysical) {
		if m != nil {
			VCVTPH2PS_Z(mem, m, to)
			return
		}
		VCVTPH2PS(mem, to)
	}}
	single := rows.Rows{Name: "F32", Bytes: 4, Load: rows.LoadF32}
	for _, r := range []rows.Rows{half, single} {
		for _, v := range []rows.Vec{{}, {Wide: true}} {
			// Enough chains of multiply-adds to hide their latency, within the
			// registers: 12 at 256 bits.
			if v.Wide {
				rows.QK(v, r, 4, 4)
				rows.QK(v, r, 3, 4)
				rows.QK(v, r, 2, 4)
				rows.QK(v, r, 1, 8)
				rows.PV(v, r, 4, 4, 2, 1)
				rows.PV(v, r, 3, 4, 2, 1)
				rows.PV(v, r, 2, 4, 2, 1)
				rows.PV(v, r, 1, 8, 4, 1)
				continue
			}
			rows.QK(v, r, 4, 3)
			rows.QK(v, r, 3, 4)
			rows.QK(v, r, 2, 4)
			rows.QK(v, r, 1, 8)
			rows.PV(v, r, 4, 3, 2, 1)
			rows.PV(v, r, 3, 4, 2, 1)
			rows.PV(v, r, 2, 4, 2, 1)
			rows.PV(v, r, 1, 8, 4, 1)
		}
	}
	widen(rows.Vec{})
	widen(rows.Vec{Wide: true})
	Generate()
}
