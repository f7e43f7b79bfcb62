package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// productsAVX2 takes 16 tokens at a time, a lane each: a vector of 32 bytes is 8
// tokens' words of 16 channels, and (v>>2i)&3 is 4 consecutive channels of each
// token, to be multiplied with those of a query in every lane. 16-bit sums hold
// 128 channels (2·32·127·3 < 2^15).
func productsAVX2(nq int) {
	TEXT(fmt.Sprintf("products%dAVX2", nq), NOSPLIT, "func(dots *int32, q *int8, "+pageArgs+", low bool)")
	Pragma("noescape")
	Doc(fmt.Sprintf("products%dAVX2 is Kernels.PageProducts for %d vectors.", nq, nq))
	dots, width := Load(Param("dots"), GP64()), Load(Param("width"), GP64())
	q := rowPointers(nq, Load(Param("q"), GP64()), width)
	mask := YMM()
	VPBROADCASTD(consts.pair[0], mask)
	at, end := GP64(), GP64()
	each(func(p *pages) {
		// The rows left are counted in the argument: registers are scarce.
		r := GP64()
		MOVQ(arg("rows"), r)
		left := AllocLocal(8)
		MOVQ(r, left)
		Label("group")
		CMPQ(left, Imm(8))
		JEQ(LabelRef("one"))
		group(p, nq, 2, q, dots, width, at, end, mask)
		SUBQ(Imm(16), left)
		JNZ(LabelRef("group"))
		JMP(LabelRef("done"))
		Label("one")
		group(p, nq, 1, q, dots, width, at, end, mask)
		Label("done")
	})
	VZEROUPPER()
	RET()
}

// group multiplies 8 or 16 tokens, and leaves the plane and dots behind them.
func group(p *pages, nq, n int, q []reg.Register, dots, width, at, end reg.Register, mask reg.VecVirtual) {
	name := fmt.Sprintf("group%d", n)
	acc := ymms(n * nq)
	second := GP64()
	if n == 2 {
		LEAQ(Mem{Base: p.plane, Index: width, Scale: 2}, second)
	}
	XORQ(at, at)
	Label(name + "Chunk")
	zero(acc)
	LEAQ(Mem{Base: at, Disp: 128}, end)
	CMPQ(end, width)
	CMOVQGT(width, end)
	Label(name + "Word")
	PREFETCHT0(Mem{Base: p.ahead})
	if n == 2 {
		PREFETCHT0(Mem{Base: p.ahead, Disp: 64})
		LEAQ(Mem{Base: p.ahead, Index: p.stride, Scale: 2}, p.ahead)
	} else {
		ADDQ(p.stride, p.ahead)
	}
	v, x := ymms(n), ymms(n)
	for h, base := range []reg.Register{p.plane, second}[:n] {
		VMOVDQU(Mem{Base: base, Index: at, Scale: 2}, v[h])
	}
	for i := range 4 {
		for h := range n {
			if i == 0 {
				VPAND(mask, v[h], x[h])
			} else {
				VPSRLW(Imm(uint64(2*i)), v[h], x[h])
				VPAND(mask, x[h], x[h])
			}
		}
		for j := range nq {
			w := YMM()
			VPBROADCASTD(Mem{Base: q[j], Index: at, Scale: 1, Disp: 4 * i}, w)
			for h := range n {
				t := w
				if h+1 < n {
					t = YMM()
				}
				VPMADDUBSW(w, x[h], t)
				VPADDW(t, acc[n*j+h], acc[n*j+h])
			}
		}
	}
	ADDQ(Imm(16), at)
	CMPQ(at, end)
	JLT(LabelRef(name + "Word"))
	for j := range nq {
		for h := range n {
			VPMADDWD(consts.ones, acc[n*j+h], acc[n*j+h])
		}
	}
	// The first chunk sets the products or adds to four times what is there, the
	// others add.
	each := func(f func(a reg.VecVirtual, m Mem)) {
		for j := range nq {
			for h := range n {
				f(acc[n*j+h], Mem{Base: dots, Disp: 4*rowStride*j + 32*h})
			}
		}
	}
	CMPQ(at, Imm(128))
	JGT(LabelRef(name + "Add"))
	CMPB(arg("low"), Imm(0))
	JEQ(LabelRef(name + "Store"))
	t := YMM()
	each(func(a reg.VecVirtual, m Mem) {
		VMOVDQU(m, t)
		VPSLLD(Imm(2), t, t)
		VPADDD(t, a, a)
	})
	JMP(LabelRef(name + "Store"))
	Label(name + "Add")
	each(func(a reg.VecVirtual, m Mem) { VPADDD(m, a, a) })
	Label(name + "Store")
	each(func(a reg.VecVirtual, m Mem) { VMOVDQU(a, m) })
	CMPQ(at, width)
	JLT(LabelRef(name + "Chunk"))
	ADDQ(Imm(uint64(32*n)), dots)
	LEAQ(Mem{Base: p.plane, Index: width, Scale: uint8(2 * n)}, p.plane)
}

// productsAVX512 takes 16 tokens at a time: a register of 64 bytes is the words of
// two groups of 8. VPDPBUSD takes codes up to 0xc0 as they are, so that a bit pair
// is masked and not shifted; each has sums of its own, 4^i times too large.
func productsAVX512(nq int) {
	TEXT(fmt.Sprintf("products%dAVX512", nq), NOSPLIT, "func(dots *int32, q *int8, "+pageArgs+", low bool)")
	Pragma("noescape")
	Doc(fmt.Sprintf("products%dAVX512 is Kernels.PageProducts for %d vectors.", nq, nq))
	dots, width := Load(Param("dots"), GP64()), Load(Param("width"), GP64())
	q := rowPointers(nq, Load(Param("q"), GP64()), width)
	var masks [4]reg.VecVirtual
	for i := range masks {
		masks[i] = ZMM()
		VPBROADCASTD(consts.pair[i], masks[i])
	}
	acc := zmms(4 * nq)
	at, rows, second := GP64(), GP64(), GP64()

	each(func(p *pages) {
		MOVQ(arg("rows"), rows)
		LEAQ(Mem{Base: p.plane, Index: width, Scale: 2}, second)
		Label("block")
		for _, a := range acc {
			VPXORD(a, a, a)
		}
		XORQ(at, at)
		CMPQ(rows, Imm(8))
		JEQ(LabelRef("last"))
		word := func(both bool) {
			p.fetch()
			v := ZMM()
			VMOVDQU32(Mem{Base: p.plane, Index: at, Scale: 2}, v.AsY())
			if both {
				VINSERTI64X4(Imm(1), Mem{Base: second, Index: at, Scale: 2}, v, v)
			}
			for i := range 4 {
				x := ZMM()
				VPANDD(masks[i], v, x)
				for j := range nq {
					VPDPBUSD_BCST(Mem{Base: q[j], Index: at, Scale: 1, Disp: 4 * i}, x, acc[4*j+i])
				}
			}
			ADDQ(Imm(16), at)
			CMPQ(at, width)
		}
		Label("both")
		word(true)
		JLT(LabelRef("both"))
		total := func() {
			for j := range nq {
				a := acc[4*j : 4*j+4]
				for i := 1; i < 4; i++ {
					VPSRAD(Imm(uint64(2*i)), a[i], a[i])
				}
				VPADDD(a[1], a[0], a[0])
				VPADDD(a[3], a[2], a[2])
				VPADDD(a[2], a[0], a[0])
			}
		}
		store := func(as func(reg.VecVirtual) reg.Register) {
			for j := range nq {
				VMOVDQU32(as(acc[4*j]), Mem{Base: dots, Disp: 4 * rowStride * j})
			}
		}
		total()
		CMPB(arg("low"), Imm(0))
		JEQ(LabelRef("store"))
		for j := range nq {
			t := ZMM()
			VPSLLD(Imm(2), Mem{Base: dots, Disp: 4 * rowStride * j}, t)
			VPADDD(t, acc[4*j], acc[4*j])
		}
		Label("store")
		store(func(r reg.VecVirtual) reg.Register { return r })
		ADDQ(Imm(64), dots)
		LEAQ(Mem{Base: p.plane, Index: width, Scale: 4}, p.plane)
		LEAQ(Mem{Base: second, Index: width, Scale: 4}, second)
		SUBQ(Imm(16), rows)
		JNZ(LabelRef("block"))
		JMP(LabelRef("done"))

		Label("last") // 8 tokens: the lower halves
		word(false)
		JLT(LabelRef("last"))
		total()
		CMPB(arg("low"), Imm(0))
		JEQ(LabelRef("storeLast"))
		for j := range nq {
			t := YMM()
			VPSLLD(Imm(2), Mem{Base: dots, Disp: 4 * rowStride * j}, t)
			VPADDD(t, acc[4*j].AsY(), acc[4*j].AsY())
		}
		Label("storeLast")
		store(func(r reg.VecVirtual) reg.Register { return r.AsY() })
		ADDQ(Imm(32), dots)
		Label("done")
	})
	VZEROUPPER()
	RET()
}
