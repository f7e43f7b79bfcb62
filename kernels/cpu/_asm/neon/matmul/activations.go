package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

// Registers of what writes dwords that lie m dwords apart.
const rDst, rStride, rSrc, rCount = neon.R(0), neon.R(1), neon.R(2), neon.R(3)

// strided is such a function.
type strided struct{ *neon.Func }

func startStrided(out *neon.File, name, doc string) strided {
	s := strided{out.Func(name, "(dst *byte, m int, src *float32, n int)", doc)}
	s.Arg("dst", rDst)
	s.Arg("m", rStride)
	s.Arg("src", rSrc)
	s.Arg("n", rCount)
	s.Go("LSL $2, %v", rStride)
	return s
}

// put writes the first lanes of v.
func (s strided) put(v neon.V, lanes int) {
	for l := range lanes {
		s.Go("VST1.P V%d.S[%d], (%v)(%v)", v, l, rDst, rStride)
	}
}

// interleave writes floats with a stride.
func interleave(out *neon.File) {
	s := startStrided(out, "interleaveNEON", "is interleave.")
	s.Sweep(rCount, 1, map[neon.R]int{rSrc: 4}, func(st neon.Step) {
		st.Load(4, rSrc, 0)
		s.put(0, st.Lanes)
	})
	s.Go("RET")
}

// encode turns blocks of 32 floats into records: see package matmul.
func encode(out *neon.File) {
	s := startStrided(out, "encodeNEON", "is encode.")
	const (
		largest, inverse, scale, small, sum = neon.V(16), neon.V(17), neon.V(18), neon.V(19), neon.V(20)
		top, tiny                           = neon.V(30), neon.V(31)
		rSum, rHalf                         = neon.R(4), neon.R(5) // and the other half
	)
	s4 := neon.S4
	s.Floats(127, top)
	s.Floats(0x1p-100, tiny)
	s.Label("block")
	for i := range neon.V(8) {
		s.Load(16, rSrc, int(16*i), i)
		s.FABS(s4, 8+i, i)
	}
	for n := neon.V(4); n > 0; n /= 2 { // as integers, NaN above all
		for i := range n {
			s.UMAX(s4, 8+i, 8+i, 8+i+n)
		}
	}
	s.UMAXV(largest, 8)
	s.DUP(s4, largest, largest, 0)
	s.FDIV(s4, inverse, top, largest)
	s.FDIV(s4, scale, largest, top)
	s.FCMGT(s4, small, tiny, largest)
	s.BIC(inverse, inverse, small)
	s.BIC(scale, scale, small)
	for i := range neon.V(8) {
		s.FMUL(s4, i, i, inverse)
		s.FCVTNS(s4, i, i)
	}
	for i := range neon.V(4) {
		s.SQXTN(s4, i, 2*i, false)
		s.SQXTN(s4, i, 2*i+1, true)
	}
	for i := range neon.V(2) {
		s.SQXTN(neon.H8, i, 2*i, false)
		s.SQXTN(neon.H8, i, 2*i+1, true)
		s.put(i, 4)
	}
	for i := range neon.V(2) {
		s.SADDLP(neon.B16, i, i)
		s.SADDLP(neon.H8, i, i)
		s.ADDV(i, i)
		s.Go("FMOVS F%d, %v", i, rHalf+neon.R(i))
	}
	s.put(scale, 1)
	s.ADD(s4, sum, 0, 1)
	s.Go("FMOVS F%d, %v", sum, rSum)
	s.SCVTF(s4, sum, sum)
	s.FMUL(s4, sum, sum, scale)
	s.put(sum, 1)
	integer := func(r neon.R, shift int) { // -r<<shift
		s.Go("LSLW $%d, %v, R7", shift, r)
		s.Go("NEGW R7, R7")
		s.Go("MOVW R7, (%v)", rDst)
		s.Go("ADD %v, %v", rStride, rDst)
	}
	integer(rSum, 7)
	integer(rSum, 3)
	integer(rHalf, 5)
	integer(rHalf+1, 5)
	s.Go("ADD $128, %v", rSrc)
	s.Go("SUBS $32, %v", rCount)
	s.Go("BNE block")
	s.Go("RET")
}
