// Package rows generates attention kernels over rows of channels: QK, the
// products of query vectors with the rows of K, and PV, the weighted sums of the
// rows of V. Vector lanes are channels. Generators say how a vector of a row is
// loaded; the blocking, the order of the sums and the stores are here.
package rows

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Vec is a vector size: 512 bits or 256.
type Vec struct{ Wide bool }

// Name is the instruction level, as part of function names.
func (v Vec) Name() string {
	if v.Wide {
		return "AVX512"
	}
	return "AVX2"
}

// Lanes is the float32s of a vector.
func (v Vec) Lanes() int {
	if v.Wide {
		return 16
	}
	return 8
}

var ymm = []reg.VecPhysical{
	reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7,
	reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15,
}

var zmm = []reg.VecPhysical{
	reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7,
	reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
	reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23,
	reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
}

// Low is register i: the sixteen that VEX instructions can name come first.
func (v Vec) Low(i int) reg.VecPhysical {
	if v.Wide {
		return zmm[i]
	}
	return ymm[i]
}

// High is register i from the top: the accumulators.
func (v Vec) High(i int) reg.VecPhysical {
	if v.Wide {
		return zmm[31-i]
	}
	return ymm[15-i]
}

// Turn is the j-th register of those that loads take in turn, from Low(held) on:
// two where accumulators leave that many.
func (v Vec) Turn(j, held, accumulators int) reg.VecPhysical {
	if v.Wide || held+2+accumulators <= 16 {
		held += j % 2
	}
	return v.Low(held)
}

// Zero clears a register.
func (v Vec) Zero(r reg.VecPhysical) {
	if v.Wide {
		VPXORD(r, r, r)
		return
	}
	VXORPS(r, r, r)
}

// LoadF32 loads a vector of float32s, masked where m is not nil.
func LoadF32(mem Mem, m reg.Register, dst reg.VecPhysical) {
	if m != nil {
		VMOVUPS_Z(mem, m, dst)
		return
	}
	VMOVUPS(mem, dst)
}

// StoreF32 is the reverse.
func StoreF32(src reg.VecPhysical, m reg.Register, mem Mem) {
	if m != nil {
		VMOVUPS(src, m, mem)
		return
	}
	VMOVUPS(src, mem)
}

// Reduce4 sums the lanes of each of four vectors: dst's first four floats are
// the sums of a, b, c and d. With lanes l0, l1, … a 128-bit lane is
// (l0+l2)+(l1+l3); the upper half is added to the lower until one lane is left.
// t are four low registers, of which t[1] is the result; none may be among a…d.
func (v Vec) Reduce4(a, b, c, d reg.VecPhysical, t [4]reg.VecPhysical) reg.VecPhysical {
	VUNPCKLPS(b, a, t[0])
	VUNPCKHPS(b, a, t[1])
	VADDPS(t[1], t[0], t[0])
	VUNPCKLPS(d, c, t[2])
	VUNPCKHPS(d, c, t[3])
	VADDPS(t[3], t[2], t[2])
	VUNPCKLPD(t[2], t[0], t[1])
	VUNPCKHPD(t[2], t[0], t[3])
	VADDPS(t[3], t[1], t[1])
	if v.Wide {
		VEXTRACTF64X4(U8(1), t[1], t[0].AsY())
		VADDPS(t[0].AsY(), t[1].AsY(), t[1].AsY())
	}
	VEXTRACTF128(U8(1), t[1].AsY(), t[0].AsX())
	VADDPS(t[0].AsX(), t[1].AsX(), t[1].AsX())
	return t[1].AsX().(reg.VecPhysical)
}

// Begin starts a function of the package being generated.
func Begin(name, doc, signature string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc)
}

// End clears the upper halves, without which Go's own float code is slow, and
// returns.
func End() {
	VZEROUPPER()
	RET()
}
