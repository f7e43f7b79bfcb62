package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

func scores(out *neon.File) {
	k := start(out, "scoresNEON", "t *float32, dots *int32, step, bias *float32, nq int, add bool", "Kernels.Scores")
	const top, x, operand, q, none = neon.V(0), neon.V(4), neon.V(5), neon.V(6), neon.V(7)
	k.Arg("dots", rDots)
	k.Arg("step", rStep)
	k.Arg("bias", rBias)
	k.Arg("add", rAdd)
	k.Floats(negInf, none)
	k.each(func() {
		for j := range neon.V(4) {
			k.MOV(top+j, none)
		}
		k.Spread(rFields, offQSum, q)
		k.Go("MOVD %v, %v", rS, atS)
		k.Go("MOVD %v, %v", rDots, atDots)
		k.Go("MOVD %v, %v", rStep, atStep)
		k.Go("MOVD %v, %v", rBias, atBias)
		block := func(add bool) func(bool) {
			return func(masked bool) {
				for j := range 4 {
					k.Load(16, atDots, 16*j, x)
					k.SCVTF(neon.S4, x, x)
					k.Load(16, atStep, 16*j, operand)
					k.FMUL(neon.S4, x, x, operand)
					k.Load(16, atBias, 16*j, operand)
					k.FMLA(neon.S4, x, operand, q)
					if add {
						k.Load(16, atS, 16*j, operand)
						k.FADD(neon.S4, x, x, operand)
					}
					if masked {
						k.mask()
						k.BIF(x, none, vMask)
					}
					k.Store(16, x, atS, 16*j)
					k.maxNumber(x, top+neon.V(j), operand)
				}
			}
		}
		operands := []neon.R{atS, atDots, atStep, atBias}
		k.Go("CBZ %v, set", rAdd)
		k.blocks("add", operands, block(true))
		k.Go("B max")
		k.Label("set")
		k.blocks("set", operands, block(false))
		k.Label("max")
		k.fold(top, k.FMAX, offMax)
		k.Go("ADD $%d, %v", rowBytes, rDots)
	})
}

func findMax(out *neon.File) {
	k := start(out, "findMaxNEON", "t *float32, nq int", "Kernels.FindMax")
	const top, x, t, none = neon.V(0), neon.V(4), neon.V(5), neon.V(7)
	k.Floats(negInf, none)
	k.each(func() {
		for j := range neon.V(4) {
			k.MOV(top+j, none)
		}
		k.Go("MOVD %v, %v", rS, atS)
		k.blocks("max", []neon.R{atS}, func(masked bool) {
			for j := range 4 {
				k.Load(16, atS, 16*j, x)
				if masked {
					k.mask()
					k.BIF(x, none, vMask)
					k.Store(16, x, atS, 16*j)
				}
				k.maxNumber(x, top+neon.V(j), t)
			}
		})
		k.fold(top, k.FMAX, offMax)
	})
}

// Registers of the exponential: its constants, and what it changes.
const (
	vFactor, vMinusTop, vLeast = neon.V(16), neon.V(17), neon.V(18)
	vC5                        = neon.V(19) // c4 to c1 and 1 follow
	vY, vInt, vPoly, vBelow    = neon.V(13), neon.V(14), neon.V(15), neon.V(27)
)

func (k kernel) exponentConstants() {
	k.Floats(-125, vLeast)
	for i, c := range []float32{0.0011125507682639023, 0.00966628252468191, 0.05557400473320265, 0.2402235065068627, 0.693142830608352, 1} {
		k.Floats(c, vC5+neon.V(i))
	}
}

// exponent makes x 2^(factor·x - top), 0 where that is below 2^-125.
func (k kernel) exponent(x neon.V) {
	s4 := neon.S4
	k.MOV(vY, vMinusTop)
	k.FMLA(s4, vY, x, vFactor)
	k.FCMGE(s4, vBelow, vLeast, vY) // not where NaN, which stays
	k.FRINTN(s4, vInt, vY)
	k.FSUB(s4, vY, vY, vInt)
	k.FCVTNS(s4, vInt, vInt)
	k.MOV(vPoly, vC5)
	p, t := vPoly, x
	for i := range neon.V(5) {
		k.MOV(t, vC5+1+i)
		k.FMLA(s4, t, p, vY)
		p, t = t, p
	}
	k.SHL(s4, vInt, vInt, 23)
	k.ADD(s4, x, p, vInt)
	k.BIC(x, x, vBelow)
}

func weigh(out *neon.File, name string, by, centred bool) {
	args, doc := "t *float32, nq, n int", "Kernels.Weigh"
	switch {
	case centred:
		args, doc = "t *float32, step, centre *float32, nq, n int", "Kernels.WeighBy with centres"
	case by:
		args, doc = "t *float32, step *float32, nq, n int", "Kernels.WeighBy without centres"
	}
	k := start(out, name, args, doc)
	const sum, top, mid, x, operand = neon.V(0), neon.V(4), neon.V(8), neon.V(12), neon.V(25)
	operands := []neon.R{atS}
	if by {
		k.Arg("step", rStep)
		operands = append(operands, atStep)
	}
	if centred {
		k.Arg("centre", rCentre)
		operands = append(operands, atCentre)
	}
	k.Arg("n", rN)
	k.exponentConstants()
	k.each(func() {
		k.Spread(rFields, offFactor, vFactor)
		k.Spread(rFields, offTop, vMinusTop)
		k.FNEG(neon.S4, vMinusTop, vMinusTop)
		for j := range neon.V(12) {
			k.Zero(j)
		}
		k.Go("MOVD %v, %v", rS, atS)
		if by {
			k.Go("MOVD %v, %v", rStep, atStep)
		}
		if centred {
			k.Go("MOVD %v, %v", rCentre, atCentre)
		}
		load := func(base neon.R, j int, masked bool) {
			k.Load(16, base, 16*j, operand)
			if masked { // what is not seen may be anything
				k.AND(operand, operand, vMask)
			}
		}
		k.blocks("weights", operands, func(masked bool) {
			for j := range 4 {
				v := neon.V(j)
				k.Load(16, atS, 16*j, x)
				k.exponent(x)
				if masked {
					k.mask()
					k.AND(x, x, vMask)
				}
				k.FADD(neon.S4, sum+v, sum+v, x)
				if centred {
					load(atCentre, j, masked)
					k.FMLA(neon.S4, mid+v, operand, x)
				}
				if by {
					load(atStep, j, masked)
					k.FMUL(neon.S4, x, x, operand)
					k.maxNumber(x, top+v, operand)
				}
				k.Store(16, x, atS, 16*j)
			}
		})
		k.Zero(x)
		k.Go("ADD %v<<2, %v, %v", rN, rS, rSeen)
		k.Label("fill")
		k.Go("CMP %v, %v", rSeen, atS)
		k.Go("BHS filled")
		for j := range 4 {
			k.Store(16, x, atS, 16*j)
		}
		k.Go("ADD $64, %v", atS)
		k.Go("B fill")
		k.Label("filled")
		k.fold(sum, k.FADD, offSum)
		if by {
			k.fold(top, k.FMAX, offLargest)
			k.fold(mid, k.FADD, offCentre)
		}
	})
}

func quantise(out *neon.File) {
	k := start(out, "quantiseNEON", "t *float32, nq, n int", "Kernels.Quantise")
	const (
		scale, t                      = neon.V(4), neon.V(5)
		vHalf, vTiny, vLevels, vLimit = neon.V(16), neon.V(17), neon.V(18), neon.V(19)
		rCodes, rCode                 = rSeen, neon.R(16)
	)
	k.Arg("n", rN)
	k.Floats(0.5, vHalf)
	k.Floats(1e-30, vTiny)
	k.Floats(255, vLevels)
	k.Floats(256, vLimit)
	k.each(func() {
		k.Spread(rFields, offLargest, t)
		k.FDIV(neon.S4, scale, vLevels, t)
		k.FCMGT(neon.S4, t, t, vTiny)
		k.AND(scale, scale, t)
		k.Go("MOVD %v, %v", rS, atS)
		k.Go("MOVD %v, %v", rP, atCode)
		k.Go("MOVD $0, %v", rSum)
		k.Go("MOVD %v, %v", rN, rCodes)
		k.Label("codes")
		k.Go("CBZ %v, done", rCodes)
		for j := range neon.V(4) {
			k.Load(16, atS, int(16*j), j)
			k.FMUL(neon.S4, j, j, scale)
			k.FADD(neon.S4, j, j, vHalf)
			k.FCMGT(neon.S4, t, vLimit, j) // neither NaN nor infinite
			k.AND(j, j, t)
			k.FCVTZS(neon.S4, j, j)
		}
		for j := neon.V(0); j < 4; j += 2 {
			k.SQXTUN(neon.S4, j, j, false)
			k.SQXTUN(neon.S4, j, j+1, true)
		}
		k.SQXTUN(neon.H8, 0, 0, false)
		k.SQXTUN(neon.H8, 0, 2, true)
		k.Store(16, 0, atCode, 0)
		k.UADDLV(0, 0)
		k.Go("FMOVS F0, %v", rCode)
		k.Go("ADD %v, %v", rCode, rSum)
		k.Go("ADD $64, %v", atS)
		k.Go("ADD $16, %v", atCode)
		k.Go("SUB $16, %v", rCodes)
		k.Go("B codes")
		k.Label("done")
		k.Go("MOVW %v, %d(%v)", rSum, offPSum, rFields)
	})
}
