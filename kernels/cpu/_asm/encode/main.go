// Command encode generates kernels/cpu/encode's assembly.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

func main() {
	ConstraintExpr("!purego")
	for _, s := range lib.ISAs {
		g := generator{s, blockTokens / s.Lanes()}
		g.narrow()
		g.load()
		g.fit()
		g.packKeys()
		g.packValues()
	}
	widenLine()
	ranges()
	extremes()
	levels(rows.NewUniform())
	Generate()
}

// blockTokens is the number of tokens that are coded together, one to a lane.
const blockTokens = 16

// columnBytes is the size of one channel of a block.
const columnBytes = 4 * blockTokens

// Offsets in the Go package's levels and fitted.
const (
	offLast   = 0
	offHalf   = columnBytes
	offPlaces = 2 * columnBytes
	offClips  = 3 * columnBytes

	offScale   = 0
	offInverse = columnBytes
	offZero    = 2 * columnBytes
	offStored  = 3 * columnBytes
)

// generator makes the kernels of one set of instructions. A block's numbers take
// parts vectors.
type generator struct {
	lib.ISA
	parts int
}

// part is the address of one vector of 16 numbers.
func (g generator) part(base reg.Register, disp, i int) Mem {
	return Mem{Base: base, Disp: disp + i*g.Bytes}
}

func param(name string) reg.GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}

// loop repeats body until n, which it counts down from at least 1, is 0.
func loop(name string, n reg.GPVirtual, body func()) {
	l := lib.NewLabel(name)
	Label(l)
	body()
	DECQ(n)
	JNZ(LabelRef(l))
}

// saturate makes v representable in float16; NaN becomes 0.
func (g generator) saturate(v reg.VecVirtual) {
	g.KeepIf(lib.Ordered, v, v, v)
	VMINPS(lib.Floats(65504), v, v)
	VMAXPS(lib.Floats(-65504), v, v)
}

func (g generator) narrow() {
	g.Func("narrow", "(dst *byte, src *float32, n int)", "stores n numbers as float16: saturated, NaN as 0.")
	dst, src, n := param("dst"), param("src"), param("n")
	g.Sweep(n, 2, func(st lib.Step) {
		v := g.Vec()
		switch {
		case !st.Tail():
			st.Load(st.At(src, 4), v)
			g.saturate(v)
			VCVTPS2PH(U8(0), v, st.At(dst, 2))
		case g.Wide():
			st.Load(st.At(src, 4), v)
			g.saturate(v)
			VCVTPS2PH(U8(0), v, st.Mask(), st.At(dst, 2))
		default:
			st.Load(st.At(src, 4), v)
			g.saturate(v)
			x, i, bits := XMM(), st.Index(), GP32()
			VCVTPS2PH(U8(0), v, x)
			loop("each", n.(reg.GPVirtual), func() {
				VMOVD(x, bits)
				MOVW(bits.As16(), st.At(dst, 2))
				VPSRLDQ(U8(2), x, x)
				INCQ(i)
			})
		}
	})
	lib.Finish()
}
