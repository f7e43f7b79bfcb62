package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

// Registers of fit.
const (
	rX, rN, rL, rF, rClips, rCentred = neon.R(0), neon.R(1), neon.R(2), neon.R(3), neon.R(4), neon.R(5)
	rParts, rAt, rCount, rClip, rTry = neon.R(6), neon.R(7), neon.R(8), neon.R(9), neon.R(10)
	rNorm                            = neon.R(11)

	vCentre, vReach           = neon.V(0), neon.V(1)
	vLo, vHi                  = neon.V(2), neon.V(3)
	vError, vLeast            = neon.V(10), neon.V(11)
	vTmp, vY                  = neon.V(12), neon.V(13)
	vSquares, vProducts       = neon.V(14), neon.V(15)
	vThree                    = neon.V(16)
	vLast, vHalf, vOne, vNone = neon.V(26), neon.V(27), neon.V(28), neon.V(29)
	vMost, vMinusMost         = neon.V(30), neon.V(31)
	vLevels                   = neon.V(25) // half of the last level
)

// candidate is the registers of a scale, its inverse and a zero of every token of
// a part.
type candidate struct{ scale, inverse, zero neon.V }

var best, other = candidate{4, 5, 6}, candidate{7, 8, 9}

type fitter struct{ *neon.Func }

// fit follows docs/formats.md, "Coding", step by step: nothing is fused, and the
// errors are summed up in channel order.
func fit(out *neon.File) {
	f := fitter{out.Func("fitNEON", "(x *float32, n int, l, f *float32, clips int, centred, norm bool)",
		"chooses the scales (and, unless centred, zeros) of a block of n >= 1 channels among the first clips candidates; norm changes those of 2-bit codes for the last.")}
	f.Arg("x", rX)
	f.Arg("n", rN)
	f.Arg("l", rL)
	f.Arg("f", rF)
	f.Arg("clips", rClips)
	f.Arg("centred", rCentred)
	f.Arg("norm", rNorm)
	f.Floats(3, vThree)
	f.Floats(0.5, vHalf)
	f.Floats(1, vOne)
	f.Zero(vNone)
	f.Floats(largestF16, vMost)
	f.Floats(-largestF16, vMinusMost)
	f.Go("MOVD $%d, %v", parts, rParts)
	count(f.Func, "part", rParts, func() {
		f.part()
		for _, r := range []neon.R{rX, rL, rF} {
			f.Go("ADD $16, %v", r)
		}
	})
	f.Go("RET")
}

// part does one vector of tokens.
func (f fitter) part() {
	f.Load(16, rL, offLast, vLast)
	f.Load(16, rL, offHalf, vLevels)
	f.spread()
	f.Go("ADD $%d, %v, %v", offClips, rL, rClip)
	f.try(best)
	f.Go("SUB $1, %v, %v", rClips, rTry)
	f.Go("CBZ %v, chosen", rTry)
	f.squaredError(best, vLeast)
	count(f.Func, "clips", rTry, func() {
		f.Go("ADD $%d, %v", columnBytes, rClip)
		f.try(other)
		f.squaredError(other, vError)
		f.FCMGT(neon.S4, vTmp, vLeast, vError)
		f.BIT(best.scale, other.scale, vTmp)
		f.BIT(best.inverse, other.inverse, vTmp)
		f.BIT(best.zero, other.zero, vTmp)
		f.BIT(vLeast, vError, vTmp)
	})
	f.Label("chosen")
	f.Store(16, best.inverse, rF, offInverse)
	f.Store(16, best.zero, rF, offZero)
	f.Go("CBZ %v, stored", rNorm)
	f.keepNorm()
	f.Label("stored")
	f.Store(16, best.scale, rF, offScale)
	f.Store(16, best.zero, rF, offStored)
}

// keepNorm makes the scale and zero of tokens with 2-bit codes those with which the
// codes have the product with x, both less the centre, that x has with itself.
func (f fitter) keepNorm() {
	s4 := neon.S4
	f.FMUL(s4, vCentre, best.scale, vLevels)
	f.FADD(s4, vCentre, vCentre, best.zero)
	f.Zero(vSquares, vProducts)
	f.channels("norms", func() {
		f.FSUB(s4, vY, vTmp, best.zero)
		nearest(f.Func, vY, best.inverse)
		f.FSUB(s4, vY, vY, vLevels)
		f.FSUB(s4, vTmp, vTmp, vCentre)
		f.FMUL(s4, vY, vY, vTmp)
		f.FMUL(s4, vTmp, vTmp, vTmp)
		f.FADD(s4, vSquares, vSquares, vTmp)
		f.FADD(s4, vProducts, vProducts, vY)
	})
	f.FDIV(s4, other.scale, vSquares, vProducts)
	f.roundF16(other.scale)
	f.FMUL(s4, other.zero, other.scale, vLevels)
	f.FNEG(s4, other.zero, other.zero)
	f.Go("CBNZ %v, normed", rCentred)
	f.FADD(s4, other.zero, other.zero, vCentre)
	f.roundF16(other.zero)
	f.Label("normed")
	// Where the codes have more bits, or nothing to keep, all stays as it is.
	f.FCMGT(s4, vTmp, vProducts, vNone)
	f.FCMEQ(s4, vY, vLast, vThree)
	f.AND(vTmp, vTmp, vY)
	f.BIT(best.scale, other.scale, vTmp)
	f.BIT(best.zero, other.zero, vTmp)
}

// channels runs body for every channel, with its tokens in vTmp.
func (f fitter) channels(name string, body func()) {
	f.Go("MOVD %v, %v", rX, rAt)
	f.Go("MOVD %v, %v", rN, rCount)
	count(f.Func, name, rCount, func() {
		f.Load(16, rAt, 0, vTmp)
		f.Go("ADD $%d, %v", columnBytes, rAt)
		body()
	})
}

// spread gives the centre of the levels and the largest distance from it.
func (f fitter) spread() {
	s4 := neon.S4
	f.Go("CBZ %v, both", rCentred)
	f.Zero(vCentre, vReach)
	f.channels("reach", func() {
		f.FABS(s4, vTmp, vTmp)
		f.FMAX(s4, vReach, vReach, vTmp)
	})
	f.Go("B spread")
	f.Label("both")
	f.Load(16, rX, 0, vLo)
	f.MOV(vHi, vLo)
	f.channels("extremes", func() { // -0 is less than 0
		f.FMIN(s4, vLo, vLo, vTmp)
		f.FMAX(s4, vHi, vHi, vTmp)
	})
	f.FMUL(s4, vLo, vLo, vHalf)
	f.FMUL(s4, vHi, vHi, vHalf)
	f.FSUB(s4, vReach, vHi, vLo)
	// Where all are equal the centre is exactly that; -0 only if all are -0.
	f.FADD(s4, vCentre, vHi, vLo)
	f.Label("spread")
}

// try makes the candidate of the clip at rClip.
func (f fitter) try(c candidate) {
	s4, skip := neon.S4, f.NewLabel("tried")
	f.Load(16, rClip, 0, c.scale)
	f.FMUL(s4, c.scale, c.scale, vReach)
	f.FDIV(s4, c.scale, c.scale, vLevels)
	f.roundF16(c.scale)
	f.FMUL(s4, c.zero, c.scale, vLevels)
	f.FNEG(s4, c.zero, c.zero)
	f.FCMEQ(s4, vTmp, c.scale, vNone)
	f.FDIV(s4, c.inverse, vOne, c.scale)
	f.BIC(c.inverse, c.inverse, vTmp)
	f.Go("CBNZ %v, %s", rCentred, skip)
	f.FADD(s4, c.zero, c.zero, vCentre)
	f.roundF16(c.zero)
	f.Label(skip)
}

// roundF16 makes v what a float16 stores of it.
func (f fitter) roundF16(v neon.V) {
	f.FMIN(neon.S4, v, v, vMost)
	f.FMAX(neon.S4, v, v, vMinusMost)
	f.FCVTN(neon.S4, v, v, false)
	f.FCVTL(neon.S4, v, v, false)
}

// squaredError sums up the squared errors of a candidate.
func (f fitter) squaredError(c candidate, sum neon.V) {
	s4 := neon.S4
	f.Zero(sum)
	f.channels("errors", func() {
		f.FSUB(s4, vY, vTmp, c.zero)
		nearest(f.Func, vY, c.inverse)
		f.FMUL(s4, vY, vY, c.scale)
		f.FADD(s4, vY, vY, c.zero)
		f.FSUB(s4, vY, vY, vTmp)
		f.FMUL(s4, vY, vY, vY)
		f.FADD(s4, sum, sum, vY)
	})
}

// nearest makes y, the distance from level 0, the nearest level, by vHalf, vNone
// and vLast.
func nearest(f *neon.Func, y, inverse neon.V) {
	f.FMUL(neon.S4, y, y, inverse)
	f.FADD(neon.S4, y, y, vHalf)
	f.FMAX(neon.S4, y, y, vNone)
	f.FMIN(neon.S4, y, y, vLast)
	f.FRINTM(neon.S4, y, y)
}
