package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

// slice loads the first element's address of a slice.
func slice(name string) reg.GPVirtual {
	p := GP64()
	Load(Param(name).Base(), p)
	return p
}

func length(name string) reg.GPVirtual {
	n := GP64()
	Load(Param(name).Len(), n)
	return n
}

func integer(name string) reg.GPVirtual {
	n := GP64()
	Load(Param(name), n)
	return n
}

// scalar broadcasts a float32 parameter.
func scalar(s lib.ISA, name string) reg.VecVirtual {
	v := s.Vec()
	VBROADCASTSS(lib.Address(Param(name)), v)
	return v
}

func sumSquares(s lib.ISA) {
	s.Func("sumSquares", "(x []float32) (sum float64)", "is the sum of x's squares, in lanes of float64.")
	x, n := slice("x"), length("x")
	var sums [4]reg.VecVirtual
	for i := range sums {
		sums[i] = s.Zero()
	}
	s.Sweep(n, 2, func(st lib.Step) {
		v := s.Vec()
		st.Load(st.At(x, 4), v)
		lo, hi := s.SplitF64(v)
		VFMADD231PD(lo, lo, sums[2*st.U])
		VFMADD231PD(hi, hi, sums[2*st.U+1])
	})
	VADDPD(sums[1], sums[0], sums[0])
	VADDPD(sums[3], sums[2], sums[2])
	VADDPD(sums[2], sums[0], sums[0])
	s.SumF64(sums[0])
	VMOVSD(sums[0].AsX(), lib.Address(Return("sum")))
	lib.Finish()
}

func scale(s lib.ISA) {
	s.Func("scale", "(dst, x, weight []float32, factor float32)", "does dst = x·factor·weight for len(weight) elements.")
	dst, x, weight, n := slice("dst"), slice("x"), slice("weight"), length("weight")
	factor := scalar(s, "factor")
	s.Sweep(n, 4, func(st lib.Step) {
		v, w := s.Vec(), s.Vec()
		st.Load(st.At(x, 4), v)
		st.Load(st.At(weight, 4), w)
		VMULPS(factor, v, v)
		VMULPS(w, v, v)
		st.Store(v, st.At(dst, 4))
	})
	lib.Finish()
}

func multiply(s lib.ISA) {
	s.Func("multiply", "(x []float32, factor float32)", "does x *= factor.")
	x, n := slice("x"), length("x")
	factor := scalar(s, "factor")
	s.Sweep(n, 4, func(st lib.Step) {
		v := s.Vec()
		st.Load(st.At(x, 4), v)
		VMULPS(factor, v, v)
		st.Store(v, st.At(x, 4))
	})
	lib.Finish()
}

func add(s lib.ISA) {
	s.Func("add", "(x, y []float32)", "does x += y for len(y) elements.")
	x, y, n := slice("x"), slice("y"), length("y")
	s.Sweep(n, 4, func(st lib.Step) {
		v, w := s.Vec(), s.Vec()
		st.Load(st.At(x, 4), v)
		st.Load(st.At(y, 4), w)
		VADDPS(w, v, v)
		st.Store(v, st.At(x, 4))
	})
	lib.Finish()
}

// overHeads repeats body for every head of a row; the register it gets is the
// head's address.
func overHeads(x, heads, stride reg.GPVirtual, body func(head reg.GPVirtual)) {
	head, left, loop := GP64(), GP64(), lib.NewLabel("heads")
	MOVQ(x, head)
	MOVQ(heads, left)
	Label(loop)
	body(head)
	ADDQ(stride, head)
	DECQ(left)
	JNZ(LabelRef(loop))
}

func ropeHalves(s lib.ISA) {
	s.Func("ropeHalves", "(x []float32, heads, headDim int, cos, sin []float32)",
		"turns channels (i, i+len(cos)) of heads >= 1 heads.")
	x, heads, stride := slice("x"), integer("heads"), integer("headDim")
	cos, sin, n := slice("cos"), slice("sin"), length("cos")
	SHLQ(U8(2), stride)
	half := GP64()
	MOVQ(n, half)
	SHLQ(U8(2), half)
	s.Sweep(n, 1, func(st lib.Step) {
		c, si := s.Vec(), s.Vec()
		st.Load(st.At(cos, 4), c)
		st.Load(st.At(sin, 4), si)
		overHeads(x, heads, stride, func(head reg.GPVirtual) {
			a, b, t, u, second := s.Vec(), s.Vec(), s.Vec(), s.Vec(), GP64()
			LEAQ(Mem{Base: head, Index: half, Scale: 1}, second)
			st.Load(st.At(head, 4), a)
			st.Load(st.At(second, 4), b)
			VMULPS(si, b, t)
			VMULPS(si, a, u)
			VFMSUB231PS(a, c, t) // a·cos - b·sin
			VFMADD231PS(b, c, u) // b·cos + a·sin
			st.Store(t, st.At(head, 4))
			st.Store(u, st.At(second, 4))
		})
	})
	lib.Finish()
}

func ropePairs(s lib.ISA) {
	s.Func("ropePairs", "(x []float32, heads, headDim int, cos, sin []float32)",
		"turns channels (2i, 2i+1) of heads >= 1 heads.")
	x, heads, stride := slice("x"), integer("heads"), integer("headDim")
	cos, sin, n := slice("cos"), slice("sin"), length("cos")
	SHLQ(U8(2), stride)
	// Half a vector of angles turns a vector of channels: sweep over channels,
	// whose index is twice that of the angles.
	ADDQ(n, n)
	s.Sweep(n, 1, func(st lib.Step) {
		c, si := s.Vec(), s.Vec()
		loadPairs(s, st, cos, c)
		loadPairs(s, st, sin, si)
		overHeads(x, heads, stride, func(head reg.GPVirtual) {
			v, swapped := s.Vec(), s.Vec()
			st.Load(st.At(head, 4), v)
			VPERMILPS(U8(0xb1), v, swapped)
			VMULPS(si, swapped, swapped)
			VFMADDSUB213PS(swapped, c, v) // even: v·c - swapped·s, odd: plus
			st.Store(v, st.At(head, 4))
		})
	})
	lib.Finish()
}

// loadPairs loads half a vector of elements, each into two neighbouring lanes.
func loadPairs(s lib.ISA, st lib.Step, base reg.GPVirtual, v reg.VecVirtual) {
	m := st.At(base, 2) // an even index, two bytes for every one
	if st.Tail() {
		loadHalf(s, st, m, v)
	} else {
		VPMOVZXDQ(m, v)
	}
	VMOVSLDUP(v, v)
}

// loadHalf is a VPMOVZXDQ that reads no further than the tail.
func loadHalf(s lib.ISA, st lib.Step, m Mem, v reg.VecVirtual) {
	if s.Wide() {
		VPMOVZXDQ_Z(m, st.HalfMask(), v)
		return
	}
	t := XMM()
	VMASKMOVPS(m, st.HalfMask().(reg.Vec).AsX(), t)
	VPMOVZXDQ(t, v)
}
