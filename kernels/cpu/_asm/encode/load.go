package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

// load transposes 16 rows of float16, which lie stride bytes apart, into columns
// of 16 float32: eight channels of eight tokens in each half of a 256-bit
// register.
func (g generator) load() {
	g.Func("load", "(dst *float32, src *byte, stride, n int)",
		"widens n channels (at least 8, a multiple of 8) of 16 rows into columns, saturated, NaN as 0.")
	dst, stride, n := param("dst"), param("stride"), param("n")
	var rows [4]reg.GPVirtual // addresses of rows 0, 4, 8, 12
	for i := range rows {
		rows[i] = GP64()
	}
	Load(Param("src"), rows[0])
	for i := range rows[1:] {
		LEAQ(Mem{Base: rows[i], Index: stride, Scale: 4}, rows[i+1])
	}
	thrice := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, thrice)
	row := func(t int) Mem {
		m := Mem{Base: rows[t/4]}
		switch t % 4 {
		case 1, 2:
			m.Index, m.Scale = stride, uint8(t%4)
		case 3:
			m.Index, m.Scale = thrice, 1
		}
		return m
	}
	SHRQ(U8(3), n)
	loop("channels", n, func() {
		var v [8]reg.VecVirtual
		for t := range v {
			v[t] = YMM()
			VMOVDQU(row(t), v[t].AsX())
			VINSERTI128(U8(1), row(t+8), v[t], v[t])
			tame(v[t])
		}
		v = transposeWords(v)
		for c := range v {
			g.storeColumn(v[c], Mem{Base: dst, Disp: c * columnBytes})
		}
		for i := range rows {
			ADDQ(U8(16), rows[i])
		}
		ADDQ(U32(8*columnBytes), dst)
	})
	lib.Finish()
}

// tame makes infinities the largest finite numbers and NaN 0.
func tame(v reg.VecVirtual) {
	abs, nan := YMM(), YMM()
	VPAND(lib.Words(0x7fff7fff), v, abs)
	VPXOR(abs, v, v) // the sign
	VPCMPGTW(lib.Words(0x7c007c00), abs, nan)
	VPMINUW(lib.Words(0x7bff7bff), abs, abs)
	VPOR(abs, v, v)
	VPANDN(v, nan, v)
}

// transposeWords transposes an 8x8 matrix of 16-bit words in each half.
func transposeWords(a [8]reg.VecVirtual) [8]reg.VecVirtual {
	pair := func(lo, hi func(ops ...Op), x, y reg.VecVirtual) (l, h reg.VecVirtual) {
		l = YMM()
		lo(y, x, l)
		hi(y, x, x)
		return l, x
	}
	var b, c, d [8]reg.VecVirtual
	for i := 0; i < 8; i += 2 {
		b[i], b[i+1] = pair(VPUNPCKLWD, VPUNPCKHWD, a[i], a[i+1])
	}
	for i := 0; i < 8; i += 4 {
		c[i], c[i+1] = pair(VPUNPCKLDQ, VPUNPCKHDQ, b[i], b[i+2])
		c[i+2], c[i+3] = pair(VPUNPCKLDQ, VPUNPCKHDQ, b[i+1], b[i+3])
	}
	for i := range 4 {
		d[2*i], d[2*i+1] = pair(VPUNPCKLQDQ, VPUNPCKHQDQ, c[i], c[i+4])
	}
	return d
}

// storeColumn widens 16 float16.
func (g generator) storeColumn(v reg.VecVirtual, m Mem) {
	w := g.Vec()
	if g.Wide() {
		VCVTPH2PS(v, w)
		VMOVUPS(w, m)
		return
	}
	VCVTPH2PS(v.AsX(), w)
	VMOVUPS(w, m)
	VEXTRACTI128(U8(1), v, v.AsX())
	VCVTPH2PS(v.AsX(), w)
	VMOVUPS(w, m.Offset(g.Bytes))
}
