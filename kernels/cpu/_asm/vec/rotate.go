package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

// rotation is a Hadamard transform of blocks of n channels, at most inner of
// them in registers at a time.
type rotation struct {
	lib.ISA
	n, inner int
	plus     []reg.VecVirtual // per stage within a vector: 1 where the pair's first element goes, -1 else
	norm     reg.VecVirtual
}

func rotate(s lib.ISA, n int) {
	if n < s.Lanes() {
		return // the narrower set's will do
	}
	s.Func(fmt.Sprintf("rotate%d", n), "(x *float32, heads, stride int, signs *float32, norm float32, inverse bool)",
		fmt.Sprintf("turns the %d channels at x of heads >= 1 heads that lie stride channels apart.", n))
	r := &rotation{ISA: s, n: n, inner: min(n, 8*s.Lanes())}
	if s.Wide() {
		r.inner = n // 32 registers
	}
	x, heads, stride, signs := integer("x"), integer("heads"), integer("stride"), integer("signs")
	SHLQ(U8(2), stride)
	r.norm = scalar(s, "norm")
	for h := 1; h < s.Lanes(); h *= 2 {
		pattern := make([]float32, 16)
		for i := range pattern {
			pattern[i] = 1
			if i&h != 0 {
				pattern[i] = -1
			}
		}
		r.plus = append(r.plus, s.Load(lib.Floats(pattern[:2*h]...)))
	}
	inverse := lib.NewLabel("inverse")
	back := GP8()
	Load(Param("inverse"), back)
	TESTB(back, back)
	JNZ(LabelRef(inverse))
	r.heads(x, heads, stride, signs, false)
	Label(inverse)
	r.heads(x, heads, stride, signs, true)
}

// heads turns one head after the other and returns.
func (r *rotation) heads(x, heads, stride, signs reg.GPVirtual, inverse bool) {
	loop := lib.NewLabel("heads")
	Label(loop)
	for at := 0; at < r.n; at += r.inner {
		r.small(x, signs, at, inverse)
	}
	if r.inner < r.n {
		r.large(x, signs, inverse)
	}
	ADDQ(stride, x)
	DECQ(heads)
	JNZ(LabelRef(loop))
	lib.Finish()
}

// small does the stages within inner channels from channel at on, in registers.
func (r *rotation) small(x, signs reg.GPVirtual, at int, inverse bool) {
	v := make([]reg.VecVirtual, r.inner/r.Lanes())
	for i := range v {
		v[i] = r.ISA.Load(Mem{Base: x, Disp: 4*at + i*r.Bytes})
		if !inverse {
			VMULPS(Mem{Base: signs, Disp: 4*at + i*r.Bytes}, v[i], v[i])
		}
	}
	for stage := range r.plus {
		for i := range v {
			r.within(stage, v[i])
		}
	}
	butterflies(r.ISA, v)
	for i := range v {
		disp := 4*at + i*r.Bytes
		if r.inner == r.n {
			r.scale(v[i], signs, disp, inverse)
		}
		VMOVUPS(v[i], Mem{Base: x, Disp: disp})
	}
}

// within does a stage whose pairs lie in one vector. The product with ±1 is
// exact, so that the fused operation rounds as the addition alone does.
func (r *rotation) within(stage int, v reg.VecVirtual) {
	swapped := r.Vec()
	switch {
	case stage == 0:
		VPERMILPS(U8(0xb1), v, swapped)
	case stage == 1:
		VPERMILPS(U8(0x4e), v, swapped)
	case !r.Wide():
		VPERM2F128(U8(1), v, v, swapped)
	case stage == 2:
		VSHUFF32X4(U8(0xb1), v, v, swapped)
	default:
		VSHUFF32X4(U8(0x4e), v, v, swapped)
	}
	VFMADD213PS(swapped, r.plus[stage], v)
}

// butterflies does the stages between vectors.
func butterflies(s lib.ISA, v []reg.VecVirtual) {
	for h := 1; h < len(v); h *= 2 {
		for i := range v {
			if i&h == 0 {
				sum := s.Vec()
				VADDPS(v[i+h], v[i], sum)
				VSUBPS(v[i+h], v[i], v[i+h])
				v[i] = sum
			}
		}
	}
}

// large does the stages between runs of inner channels, through memory.
func (r *rotation) large(x, signs reg.GPVirtual, inverse bool) {
	i, loop := GP64(), lib.NewLabel("columns")
	XORQ(i, i)
	Label(loop)
	v := make([]reg.VecVirtual, r.n/r.inner)
	for j := range v {
		v[j] = r.ISA.Load(Mem{Base: x, Index: i, Scale: 1, Disp: 4 * j * r.inner})
	}
	butterflies(r.ISA, v)
	for j := range v {
		VMULPS(r.norm, v[j], v[j])
		if inverse {
			VMULPS(Mem{Base: signs, Index: i, Scale: 1, Disp: 4 * j * r.inner}, v[j], v[j])
		}
		VMOVUPS(v[j], Mem{Base: x, Index: i, Scale: 1, Disp: 4 * j * r.inner})
	}
	ADDQ(U32(r.Bytes), i)
	CMPQ(i, U32(4*r.inner))
	JL(LabelRef(loop))
}

func (r *rotation) scale(v reg.VecVirtual, signs reg.GPVirtual, disp int, inverse bool) {
	VMULPS(r.norm, v, v)
	if inverse {
		VMULPS(Mem{Base: signs, Disp: disp}, v, v)
	}
}
