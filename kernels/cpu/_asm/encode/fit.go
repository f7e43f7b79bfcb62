package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

// candidate is a scale and a zero for every token of a part of the block.
type candidate struct{ scale, inverse, zero reg.VecVirtual }

func (g generator) candidate() candidate { return candidate{g.Vec(), g.Vec(), g.Vec()} }

// fit follows docs/formats.md, "Coding", step by step: nothing is fused, and the
// errors are summed up in channel order.
func (g generator) fit() {
	g.Func("fit", "(x *float32, n int, l, f *float32, clips int, centred, norm bool)",
		"chooses the scales (and, unless centred, zeros) of a block of n >= 1 channels among the first clips candidates; norm changes those of 2-bit codes for the last.")
	for i := range g.parts {
		g.fitPart(i)
	}
	lib.Finish()
}

// fitPart does one vector of tokens.
func (g generator) fitPart(i int) {
	x, l, f := param("x"), param("l"), param("f")
	centre, reach := g.spread(x, i)
	best, kept := g.candidate(), g.Vec()
	g.try(best, centre, reach, l, i, Mem{Base: l, Disp: offClips + i*g.Bytes})
	clips, chosen, next := param("clips"), lib.NewLabel("chosen"), lib.NewLabel("next")
	DECQ(clips)
	JZ(LabelRef(chosen))
	g.squaredError(best, x, l, i, kept)
	clip := GP64()
	LEAQ(Mem{Base: l, Disp: offClips + columnBytes + i*g.Bytes}, clip)
	Label(next)
	c, e := g.candidate(), g.Vec()
	g.try(c, centre, reach, l, i, Mem{Base: clip})
	g.squaredError(c, x, l, i, e)
	g.takeIf(lib.Less, e, kept, []reg.VecVirtual{c.scale, c.inverse, c.zero, e}, []reg.VecVirtual{best.scale, best.inverse, best.zero, kept})
	ADDQ(U32(columnBytes), clip)
	DECQ(clips)
	JNZ(LabelRef(next))
	Label(chosen)
	VMOVUPS(best.inverse, g.part(f, offInverse, i))
	VMOVUPS(best.zero, g.part(f, offZero, i))
	stored := lib.NewLabel("stored")
	norm := GP8()
	Load(Param("norm"), norm)
	TESTB(norm, norm)
	JZ(LabelRef(stored))
	g.keepNorm(best, x, l, i)
	Label(stored)
	VMOVUPS(best.zero, g.part(f, offStored, i))
	VMOVUPS(best.scale, g.part(f, offScale, i))
}

// keepNorm makes the scale and zero of tokens with 2-bit codes those with which the
// codes have the product with x, both less the centre, that x has with itself.
func (g generator) keepNorm(c candidate, x reg.GPVirtual, l reg.GPVirtual, i int) {
	centre, xx, xy := g.Vec(), g.Vec(), g.Vec()
	levels := g.part(l, offHalf, i)
	VMULPS(levels, c.scale, centre)
	VADDPS(centre, c.zero, centre)
	g.Clear(xx)
	g.Clear(xy)
	at, n := GP64(), param("n")
	MOVQ(x, at)
	half, last, none := g.Broadcast(0.5), g.Load(g.part(l, offLast, i)), g.Zero()
	loop("norms", n, func() {
		v := g.Load(g.part(at, 0, i))
		y := g.Vec()
		VSUBPS(c.zero, v, y)
		g.nearest(y, c.inverse, half, none, last)
		VSUBPS(levels, y, y)
		VSUBPS(centre, v, v)
		VMULPS(v, y, y)
		VMULPS(v, v, v)
		VADDPS(v, xx, xx)
		VADDPS(y, xy, xy)
		ADDQ(U32(columnBytes), at)
	})
	// Where the codes have one bit more, or nothing to keep, all stays as it is.
	VDIVPS(xy, xx, xx)
	g.roundF16(xx)
	zero := g.Vec()
	VMULPS(levels, xx, zero)
	VXORPS(lib.Words(1<<31), zero, zero)
	skip, centred := lib.NewLabel("normed"), GP8()
	Load(Param("centred"), centred)
	TESTB(centred, centred)
	JNZ(LabelRef(skip))
	VADDPS(zero, centre, zero)
	g.roundF16(zero)
	Label(skip)
	g.KeepIf(lib.Equal, last, g.Broadcast(3), xy) // 0 for codes of 4 bits
	g.takeIf(lib.Less, g.Zero(), xy, []reg.VecVirtual{xx, zero}, []reg.VecVirtual{c.scale, c.zero})
}

// spread gives the centre of the levels and the largest distance from it.
func (g generator) spread(x reg.GPVirtual, i int) (centre, reach reg.VecVirtual) {
	centre, reach = g.Vec(), g.Vec()
	at, n := GP64(), param("n")
	MOVQ(x, at)
	centred := GP8()
	Load(Param("centred"), centred)
	both, done := lib.NewLabel("both"), lib.NewLabel("done")
	TESTB(centred, centred)
	JZ(LabelRef(both))
	g.Clear(centre)
	g.Clear(reach)
	loop("reach", n, func() {
		v := g.Load(g.part(at, 0, i))
		VANDPS(lib.Words(0x7fffffff), v, v)
		VMAXPS(v, reach, reach)
		ADDQ(U32(columnBytes), at)
	})
	JMP(LabelRef(done))
	Label(both)
	lo, hi := g.Load(g.part(x, 0, i)), g.Load(g.part(x, 0, i))
	all := g.Load(g.part(x, 0, i))
	loop("extremes", n, func() {
		v := g.Load(g.part(at, 0, i))
		VMINPS(v, lo, lo)
		VMAXPS(v, hi, hi)
		VANDPS(v, all, all)
		ADDQ(U32(columnBytes), at)
	})
	half := g.Broadcast(0.5)
	less, more := g.Vec(), g.Vec()
	VMULPS(half, lo, less)
	VMULPS(half, hi, more)
	VSUBPS(less, more, reach)
	VADDPS(more, less, centre)
	// Where all are equal the centre is what all have in common: -0 if all are -0,
	// and +0 if only some are, which minimum and maximum do not tell apart.
	g.takeIf(lib.Equal, lo, hi, []reg.VecVirtual{all}, []reg.VecVirtual{centre})
	Label(done)
	return centre, reach
}

// takeIf takes from over into to where a op b.
func (g generator) takeIf(op uint8, a, b reg.VecVirtual, from, to []reg.VecVirtual) {
	if g.Wide() {
		k := K()
		VCMPPS(U8(op), b, a, k)
		for i := range from {
			VMOVAPS(from[i], k, to[i])
		}
		return
	}
	mask := g.Vec()
	VCMPPS(U8(op), b, a, mask)
	for i := range from {
		VBLENDVPS(mask, from[i], to[i], to[i])
	}
}

// try makes the candidate of one clip.
func (g generator) try(c candidate, centre, reach reg.VecVirtual, l reg.GPVirtual, i int, clip Mem) {
	VMULPS(clip, reach, c.scale)
	VDIVPS(g.part(l, offHalf, i), c.scale, c.scale)
	g.roundF16(c.scale)
	VMULPS(g.part(l, offHalf, i), c.scale, c.zero)
	VXORPS(lib.Words(1<<31), c.zero, c.zero)
	skip, centred := lib.NewLabel("centred"), GP8()
	Load(Param("centred"), centred)
	TESTB(centred, centred)
	JNZ(LabelRef(skip))
	VADDPS(c.zero, centre, c.zero)
	g.roundF16(c.zero)
	Label(skip)
	VMOVUPS(lib.Floats(1), c.inverse)
	VDIVPS(c.scale, c.inverse, c.inverse)
	g.KeepIf(lib.NotEqual, c.scale, g.Zero(), c.inverse)
}

// roundF16 makes v what a float16 stores of it.
func (g generator) roundF16(v reg.VecVirtual) {
	VMINPS(lib.Floats(65504), v, v)
	VMAXPS(lib.Floats(-65504), v, v)
	h := g.Half(v)
	VCVTPS2PH(U8(0), v, h)
	VCVTPH2PS(h, v)
}

// squaredError sums up the squared errors of a candidate.
func (g generator) squaredError(c candidate, x, l reg.GPVirtual, i int, sum reg.VecVirtual) {
	at, n := GP64(), param("n")
	MOVQ(x, at)
	g.Clear(sum)
	half, last, none := g.Broadcast(0.5), g.Load(g.part(l, offLast, i)), g.Zero()
	loop("errors", n, func() {
		v := g.Load(g.part(at, 0, i))
		y := g.Vec()
		VSUBPS(c.zero, v, y)
		g.nearest(y, c.inverse, half, none, last)
		VMULPS(c.scale, y, y)
		VADDPS(c.zero, y, y)
		VSUBPS(v, y, y)
		VMULPS(y, y, y)
		VADDPS(y, sum, sum)
		ADDQ(U32(columnBytes), at)
	})
}

// nearest makes y, the distance from level 0, the nearest level.
func (g generator) nearest(y, inverse reg.VecVirtual, half, none, last Op) {
	VMULPS(inverse, y, y)
	VADDPS(half, y, y)
	VMAXPS(none, y, y)
	VMINPS(last, y, y)
	if g.Wide() {
		VRNDSCALEPS(U8(3), y, y)
	} else {
		VROUNDPS(U8(3), y, y)
	}
}
