package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// bytes fills a data section of 4 bytes with b.
func bytes(name string, b uint32) Mem {
	m := GLOBL(name, 8|16) // RODATA|NOPTR
	DATA(0, U32(b))
	return m
}

// rowPointers loads the address of every vector's row, stride bytes apart.
func rowPointers(nq int, base reg.Register, stride reg.Register) []reg.Register {
	rows := []reg.Register{base}
	for v := 1; v < nq; v++ {
		r := GP64()
		MOVQ(rows[v-1], r)
		ADDQ(stride, r)
		rows = append(rows, r)
	}
	return rows
}

func zero(regs []reg.VecVirtual) {
	for _, r := range regs {
		VPXOR(r, r, r)
	}
}

func ymms(n int) []reg.VecVirtual {
	var r []reg.VecVirtual
	for range n {
		r = append(r, YMM())
	}
	return r
}

// productsAVX2 takes 8 tokens at a time, a lane each: a vector of 32 bytes is
// their words of 16 channels, and (v>>2i)&3 is 4 consecutive channels of each
// token, to be multiplied with those of a query in every lane. 16-bit sums hold
// 128 channels (2·32·127·3 < 2^15).
func productsAVX2(nq int) {
	TEXT(fmt.Sprintf("products%dAVX2", nq), NOSPLIT, "func(dots *int32, q *int8, plane *byte, width, rows int, low bool)")
	Pragma("noescape")
	Doc(fmt.Sprintf("products%dAVX2 is Kernels.Products of %d vectors.", nq, nq))
	dots, plane := Load(Param("dots"), GP64()), Load(Param("plane"), GP64())
	width, groups := Load(Param("width"), GP64()), Load(Param("rows"), GP64())
	low := Load(Param("low"), GP8())
	q := rowPointers(nq, Load(Param("q"), GP64()), width)
	mask := YMM()
	VPBROADCASTD(bytes(fmt.Sprintf("threes%d", nq), 0x03030303), mask)
	ones := YMM()
	VPCMPEQW(ones, ones, ones)
	VPSRLW(Imm(15), ones, ones)
	SHRQ(Imm(3), groups)
	wide, narrow := ymms(nq), ymms(nq)
	at, end := GP64(), GP64()

	Label("group")
	zero(wide)
	XORQ(at, at)
	Label("chunk")
	zero(narrow)
	LEAQ(Mem{Base: at, Disp: 128}, end)
	CMPQ(end, width)
	CMOVQGT(width, end)
	Label("word")
	v, x, t := YMM(), YMM(), YMM()
	VMOVDQU(Mem{Base: plane}, v)
	ADDQ(Imm(32), plane)
	for i := range 4 {
		if i == 0 {
			VPAND(mask, v, x)
		} else {
			VPSRLW(Imm(uint64(2*i)), v, x)
			VPAND(mask, x, x)
		}
		for j := range nq {
			VPBROADCASTD(Mem{Base: q[j], Index: at, Scale: 1, Disp: 4 * i}, t)
			VPMADDUBSW(t, x, t)
			VPADDW(t, narrow[j], narrow[j])
		}
	}
	ADDQ(Imm(16), at)
	CMPQ(at, end)
	JLT(LabelRef("word"))
	for j := range nq {
		VPMADDWD(ones, narrow[j], narrow[j])
		VPADDD(narrow[j], wide[j], wide[j])
	}
	CMPQ(at, width)
	JLT(LabelRef("chunk"))
	TESTB(low, low)
	JZ(LabelRef("store"))
	for j := range nq {
		VMOVDQU(Mem{Base: dots, Disp: 4 * rowStride * j}, t)
		VPSLLD(Imm(2), t, t)
		VPADDD(t, wide[j], wide[j])
	}
	Label("store")
	for j := range nq {
		VMOVDQU(wide[j], Mem{Base: dots, Disp: 4 * rowStride * j})
	}
	ADDQ(Imm(32), dots)
	DECQ(groups)
	JNZ(LabelRef("group"))
	VZEROUPPER()
	RET()
}

// sumsAVX2 takes 32 channels at a time, a vector of 32 bytes for every quad of
// tokens: (v>>2i)&3 is the quad's codes of 8 channels, to be multiplied with the
// quad's weights in every lane. 16-bit sums hold a page (16·2·255·3 < 2^15). Four
// vectors' sums of all four bit pairs would not fit the registers, so that the
// plane is read twice, two bit pairs at a time.
func sumsAVX2(nq int) {
	TEXT(fmt.Sprintf("sums%dAVX2", nq), NOSPLIT, "func(sums *int32, p, plane *byte, width, quads int)")
	Pragma("noescape")
	Doc(fmt.Sprintf("sums%dAVX2 is Kernels.WeightedSums of %d vectors.", nq, nq))
	sums, p, plane := Load(Param("sums"), GP64()), Load(Param("p"), GP64()), Load(Param("plane"), GP64())
	width, quads := Load(Param("width"), GP64()), Load(Param("quads"), GP64())
	mask := YMM()
	VPBROADCASTD(bytes(fmt.Sprintf("threesV%d", nq), 0x03030303), mask)
	ones := YMM()
	VPCMPEQW(ones, ones, ones)
	VPSRLW(Imm(15), ones, ones)
	stride, groups := GP64(), GP64() // bytes between vectors' sums; 32 channels each
	MOVQ(width, stride)
	SHLQ(Imm(2), stride)
	MOVQ(width, groups)
	SHRQ(Imm(5), groups)
	out := rowPointers(nq, sums, stride)
	pairs := 2
	if nq == 1 {
		pairs = 4
	}
	acc := ymms(pairs * nq)
	at, quad := GP64(), GP64()
	Label("group")
	for first := 0; first < 4; first += pairs {
		zero(acc)
		MOVQ(plane, at)
		XORQ(quad, quad)
		loop := fmt.Sprintf("quad%d", first)
		Label(loop)
		v, w, t := YMM(), YMM(), YMM()
		x := ymms(pairs)
		VMOVDQU(Mem{Base: at}, v)
		for i := range x {
			if shift := 2 * (first + i); shift == 0 {
				VPAND(mask, v, x[i])
			} else {
				VPSRLW(Imm(uint64(shift)), v, x[i])
				VPAND(mask, x[i], x[i])
			}
		}
		for j := range nq {
			VPBROADCASTD(Mem{Base: p, Index: quad, Scale: 4, Disp: rowStride * j}, w)
			for i := range x {
				VPMADDUBSW(x[i], w, t)
				VPADDW(t, acc[j*pairs+i], acc[j*pairs+i])
			}
		}
		ADDQ(width, at)
		INCQ(quad)
		CMPQ(quad, quads)
		JLT(LabelRef(loop))
		for j := range nq {
			for i := range x {
				a, m := acc[j*pairs+i], Mem{Base: out[j], Disp: 32 * (first + i)}
				VPMADDWD(ones, a, a)
				VPADDD(m, a, a)
				VMOVDQU(a, m)
			}
		}
	}
	ADDQ(Imm(32), plane)
	for j := range nq {
		ADDQ(U32(128), out[j])
	}
	DECQ(groups)
	JNZ(LabelRef("group"))
	VZEROUPPER()
	RET()
}
