package main

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

// inRegisters is the most channels that are transformed in registers at a time.
const inRegisters = 64

const (
	rotX, rotHeads, rotStride, rotSigns = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
	rotAt, rotSign, rotLeft, rotBack    = neon.R(4), neon.R(5), neon.R(6), neon.R(7)
	// Where the first of a pair of channels goes plus, the other minus; the norm.
	plus1, plus2, rotNorm = neon.V(29), neon.V(30), neon.V(31)
)

// rotation is a Hadamard transform of blocks of n channels, at most inner of
// them in registers at a time.
type rotation struct {
	*neon.Func
	n, inner int
}

func rotate(out *neon.File, n int) {
	r := rotation{out.Func(fmt.Sprintf("rotate%dNEON", n), "(x *float32, heads, stride int, signs *float32, norm float32, inverse bool)",
		fmt.Sprintf("turns the %d channels at x of heads >= 1 heads that lie stride channels apart.", n)), n, min(n, inRegisters)}
	r.Arg("x", rotX)
	r.Arg("heads", rotHeads)
	r.Arg("stride", rotStride)
	r.Arg("signs", rotSigns)
	r.Arg("inverse", rotBack)
	r.Scalar("norm", rotNorm)
	r.Go("LSL $2, %v", rotStride)
	r.Floats(1, 0)
	r.Floats(-1, 1)
	r.ZIP1(neon.S4, plus1, 0, 1)
	r.EXT(plus2, 0, 1, 8)
	inverse := r.NewLabel("inverse")
	r.Go("CBNZ %v, %s", rotBack, inverse)
	r.heads(false)
	r.Label(inverse)
	r.heads(true)
}

// heads turns one head after the other and returns.
func (r rotation) heads(inverse bool) {
	loop := r.NewLabel("heads")
	r.Label(loop)
	for at := 0; at < r.n; at += r.inner {
		r.small(at, inverse)
	}
	if r.inner < r.n {
		r.large(inverse)
	}
	r.Go("ADD %v, %v", rotStride, rotX)
	r.Go("SUBS $1, %v", rotHeads)
	r.Go("BNE %s", loop)
	r.Go("RET")
}

// small does the stages within inner channels from channel at on, in registers.
func (r rotation) small(at int, inverse bool) {
	const other = neon.V(28)
	vectors := r.inner / 4
	for i := range vectors {
		v := neon.V(i)
		r.Load(16, rotX, 4*at+16*i, v)
		if !inverse {
			r.Load(16, rotSigns, 4*at+16*i, other)
			r.FMUL(neon.S4, v, v, other)
		}
	}
	// Within a vector: the product with ±1 is exact, so that the fused operation
	// rounds as the addition alone does.
	for i := range vectors {
		v := neon.V(i)
		r.REV64(neon.S4, other, v)
		r.FMLA(neon.S4, other, v, plus1)
		r.EXT(v, other, other, 8)
		r.FMLA(neon.S4, v, other, plus2)
	}
	r.butterflies(vectors)
	for i := range vectors {
		v := neon.V(i)
		if r.inner == r.n {
			r.scale(v, rotSigns, 4*at+16*i, inverse)
		}
		r.Store(16, v, rotX, 4*at+16*i)
	}
}

// butterflies does the stages between vectors V0 to Vn-1.
func (r rotation) butterflies(n int) {
	const sum = neon.V(28)
	for h := 1; h < n; h *= 2 {
		for i := range n {
			if i&h == 0 {
				a, b := neon.V(i), neon.V(i+h)
				r.FADD(neon.S4, sum, a, b)
				r.FSUB(neon.S4, b, a, b)
				r.MOV(a, sum)
			}
		}
	}
}

// large does the stages between runs of inner channels, through memory.
func (r rotation) large(inverse bool) {
	loop := r.NewLabel("columns")
	r.Go("MOVD %v, %v", rotX, rotAt)
	r.Go("MOVD %v, %v", rotSigns, rotSign)
	r.Go("MOVD $%d, %v", r.inner/4, rotLeft)
	r.Label(loop)
	runs := r.n / r.inner
	for i := range runs {
		r.Load(16, rotAt, 4*i*r.inner, neon.V(i))
	}
	r.butterflies(runs)
	for i := range runs {
		r.scale(neon.V(i), rotSign, 4*i*r.inner, inverse)
		r.Store(16, neon.V(i), rotAt, 4*i*r.inner)
	}
	r.Go("ADD $16, %v", rotAt)
	r.Go("ADD $16, %v", rotSign)
	r.Go("SUBS $1, %v", rotLeft)
	r.Go("BNE %s", loop)
}

// scale multiplies by the norm, and by the signs on the way back.
func (r rotation) scale(v neon.V, signs neon.R, at int, inverse bool) {
	const sign = neon.V(28)
	r.FMUL(neon.S4, v, v, rotNorm)
	if inverse {
		r.Load(16, signs, at, sign)
		r.FMUL(neon.S4, v, v, sign)
	}
}
