// Command peak generates the loops of package peak.
package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// chains is the number of independent accumulators: more than latency times
// throughput of any machine known (Golden Cove: 4 cycles, 2 a cycle).
const chains = 12

func main() {
	ConstraintExpr("!purego")
	for _, wide := range []bool{false, true} {
		compute("FMA", wide, func(acc, a, b, _ reg.VecVirtual) { VFMADD231PS(a, b, acc) })
		compute("Maddubs", wide, func(acc, a, b, t reg.VecVirtual) {
			VPMADDUBSW(a, b, t)
			VPADDW(t, acc, acc)
		})
		read(wide)
	}
	compute("Dpbusd", true, func(acc, a, b, _ reg.VecVirtual) { VPDPBUSD(a, b, acc) })
	Generate()
}

func vec(wide bool) reg.VecVirtual {
	if wide {
		return ZMM()
	}
	return YMM()
}

func name(what string, wide bool) string {
	if wide {
		return what + "AVX512"
	}
	return what + "AVX2"
}

func zero(v reg.VecVirtual, wide bool) {
	if wide {
		VPXORD(v, v, v)
		return
	}
	VPXOR(v, v, v)
}

// compute is n rounds of one operation on every chain, on zeros: the time does
// not depend on values that are no denormals.
func compute(what string, wide bool, op func(acc, a, b, t reg.VecVirtual)) {
	TEXT("compute"+name(what, wide), attr.NOSPLIT, "func(n int)")
	Doc(fmt.Sprintf("compute%s does %d operations in each of n rounds.", name(what, wide), chains))
	Pragma("noescape")
	n := Load(Param("n"), GP64())
	a, b, t := vec(wide), vec(wide), vec(wide)
	zero(a, wide)
	zero(b, wide)
	var acc [chains]reg.VecVirtual
	for i := range acc {
		acc[i] = vec(wide)
		zero(acc[i], wide)
	}
	label := what + "Loop" + name("", wide)
	Label(label)
	for i := range acc {
		op(acc[i], a, b, t)
	}
	DECQ(n)
	JNZ(LabelRef(label))
	VZEROUPPER()
	RET()
}

// read loads n bytes, a multiple of 512, in vectors. Asking for lines ahead did not
// make it faster.
func read(wide bool) {
	TEXT(name("read", wide), attr.NOSPLIT, "func(p *byte, n int)")
	Doc(name("read", wide) + " loads n bytes, a positive multiple of 512.")
	Pragma("noescape")
	p, n := Load(Param("p"), GP64()), Load(Param("n"), GP64())
	size := 32
	if wide {
		size = 64
	}
	var acc [4]reg.VecVirtual
	for i := range acc {
		acc[i] = vec(wide)
		zero(acc[i], wide)
	}
	label := "readLoop" + name("", wide)
	Label(label)
	for i := range 512 / size {
		m := Mem{Base: p, Disp: i * size}
		if wide {
			VPORD(m, acc[i%4], acc[i%4])
		} else {
			VPOR(m, acc[i%4], acc[i%4])
		}
	}
	ADDQ(U32(512), p)
	SUBQ(U32(512), n)
	JNZ(LabelRef(label))
	VZEROUPPER()
	RET()
}
