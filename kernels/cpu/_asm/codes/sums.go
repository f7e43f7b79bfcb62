package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// sumsAVX2 takes 32 channels at a time, a vector of 32 bytes for every quad of
// tokens: (v>>2i)&3 is the quad's codes of 8 channels, to be multiplied with the
// quad's weights in every lane. 16-bit sums hold a page (16·2·255·3 < 2^15). Four
// vectors' sums of all four bit pairs would not fit the registers, so that the
// plane is read twice, two bit pairs at a time.
func sumsAVX2(nq int) {
	TEXT(fmt.Sprintf("sums%dAVX2", nq), NOSPLIT, "func(sums *int32, p *byte, "+pageArgs+", add bool)")
	Pragma("noescape")
	Doc(fmt.Sprintf("sums%dAVX2 is Kernels.PageSums for %d vectors.", nq, nq))
	p, width := Load(Param("p"), GP64()), Load(Param("width"), GP64())
	mask := YMM()
	VPBROADCASTD(consts.pair[0], mask)
	pairs := 2
	if nq == 1 {
		pairs = 4
	}
	acc := ymms(pairs * nq)
	at, row, rows, even := GP64(), GP64(), GP64(), GP64()
	stride, left, out := GP64(), GP64(), GP64() // bytes between vectors' sums; channels left
	MOVQ(width, stride)
	SHLQ(Imm(2), stride)
	each(func(pg *pages) {
		MOVQ(arg("rows"), rows)
		MOVQ(rows, even)
		ANDQ(I8(-8), even)
		MOVQ(arg("sums"), out)
		MOVQ(width, left)
		Label("group")
		for first := 0; first < 4; first += pairs {
			zero(acc)
			MOVQ(pg.plane, at)
			XORQ(row, row)
			loop := fmt.Sprintf("quad%d", first)
			quad := func(off int, index reg.Register) {
				v, w, t := YMM(), YMM(), YMM()
				x := ymms(pairs)
				m := Mem{Base: at}
				if index != nil {
					m = m.Idx(index, 1)
				}
				VMOVDQU(m, v)
				for i := range x {
					if shift := 2 * (first + i); shift == 0 {
						VPAND(mask, v, x[i])
					} else {
						VPSRLW(Imm(uint64(shift)), v, x[i])
						VPAND(mask, x[i], x[i])
					}
				}
				for j := range nq {
					VPBROADCASTD(Mem{Base: p, Index: row, Scale: 1, Disp: rowStride*j + off}, w)
					for i := range x {
						VPMADDUBSW(x[i], w, t)
						VPADDW(t, acc[j*pairs+i], acc[j*pairs+i])
					}
				}
			}
			CMPQ(rows, Imm(4))
			JEQ(LabelRef(loop + "One"))
			Label(loop)
			PREFETCHT0(Mem{Base: pg.ahead})
			LEAQ(Mem{Base: pg.ahead, Index: pg.stride, Scale: 2}, pg.ahead)
			quad(0, nil)
			quad(4, width)
			LEAQ(Mem{Base: at, Index: width, Scale: 2}, at)
			ADDQ(Imm(8), row)
			CMPQ(row, even)
			JLT(LabelRef(loop))
			CMPQ(row, rows)
			JEQ(LabelRef(loop + "Done"))
			Label(loop + "One")
			quad(0, nil)
			Label(loop + "Done")
			o := GP64()
			MOVQ(out, o)
			for j := range nq {
				for i := range pairs {
					VPMADDWD(consts.ones, acc[j*pairs+i], acc[j*pairs+i])
				}
			}
			// The first page sets the sums, or adds as the others do.
			place := func(add bool) {
				for j := range nq {
					for i := range pairs {
						a, m := acc[j*pairs+i], Mem{Base: o, Disp: 32 * (first + i)}
						if add {
							VPADDD(m, a, a)
						}
						VMOVDQU(a, m)
					}
					if j+1 < nq {
						ADDQ(stride, o)
					}
				}
			}
			CMPB(arg("add"), Imm(0))
			JNE(LabelRef(loop + "Add"))
			place(false)
			JMP(LabelRef(loop + "Placed"))
			Label(loop + "Add")
			place(true)
			Label(loop + "Placed")
		}
		ADDQ(Imm(32), pg.plane)
		ADDQ(U32(128), out)
		SUBQ(Imm(32), left)
		JNZ(LabelRef("group"))
		ADDQ(rows, p)
		MOVB(Imm(1), arg("add"))
	})
	VZEROUPPER()
	RET()
}

// sumsAVX512 takes 64 channels at a time, all pages of them: a register of 64
// bytes for every quad of tokens. The codes are the signed operand, so that the
// first three bit pairs are masked and the last is shifted onto the third's place;
// each has sums of its own, 4^i times too large.
func sumsAVX512(nq int) {
	TEXT(fmt.Sprintf("sums%dAVX512", nq), NOSPLIT, "func(sums *int32, p *byte, "+pageArgs+", add bool)")
	Pragma("noescape")
	Doc(fmt.Sprintf("sums%dAVX512 is Kernels.PageSums for %d vectors.", nq, nq))
	width, rows, fetched := Load(Param("width"), GP64()), Load(Param("rows"), GP64()), Load(Param("stride"), GP64())
	out := Load(Param("sums"), GP64())
	var masks [3]reg.VecVirtual
	for i := range masks {
		masks[i] = ZMM()
		VPBROADCASTD(consts.pair[i], masks[i])
	}
	acc := zmms(4 * nq)
	channel, page, pages := GP64(), GP64(), GP64() // page counts bytes of slices
	p, at, ahead, row := GP64(), GP64(), GP64(), GP64()
	MOVQ(arg("n"), pages)
	IMUL3Q(Imm(24), pages, pages)
	XORQ(channel, channel)

	quads := func(name string, both bool) {
		for _, a := range acc {
			VPXORD(a, a, a)
		}
		XORQ(page, page)
		MOVQ(arg("p"), p)
		Label(name + "Page")
		r := GP64()
		MOVQ(arg("pages"), r)
		MOVQ(Mem{Base: r, Index: page, Scale: 1}, at)
		ADDQ(arg("off"), at)
		ADDQ(channel, at)
		MOVQ(arg("next"), r)
		MOVQ(Mem{Base: r, Index: page, Scale: 1}, ahead)
		ADDQ(arg("from"), ahead)
		// Each 64 channels take their part of what is to be fetched: stride bytes a
		// quad.
		MOVQ(channel, r)
		IMULQ(rows, r)
		SHRQ(Imm(8), r)
		IMULQ(fetched, r)
		ADDQ(r, ahead)
		XORQ(row, row)
		Label(name)
		PREFETCHT1(Mem{Base: ahead})
		PREFETCHT1(Mem{Base: ahead, Disp: 64})
		ADDQ(fetched, ahead)
		v := ZMM()
		if both {
			VMOVDQU64(Mem{Base: at}, v)
		} else {
			VMOVDQU32(Mem{Base: at}, v.AsY())
		}
		var x [4]reg.VecVirtual
		for i := range x {
			x[i] = ZMM()
			if i < 3 {
				VPANDD(masks[i], v, x[i])
				continue
			}
			VPSRLD(Imm(2), v, x[i])
			VPANDD(masks[2], x[i], x[i])
		}
		for j := range nq {
			w := ZMM()
			VPBROADCASTD(Mem{Base: p, Index: row, Scale: 1, Disp: rowStride * j}, w)
			for i := range x {
				VPDPBUSD(x[i], w, acc[4*j+i])
			}
		}
		ADDQ(width, at)
		ADDQ(Imm(4), row)
		CMPQ(row, rows)
		JLT(LabelRef(name))
		ADDQ(rows, p)
		ADDQ(Imm(24), page)
		CMPQ(page, pages)
		JLT(LabelRef(name + "Page"))
		o := GP64()
		MOVQ(out, o)
		for j := range nq {
			for i := 1; i < 4; i++ {
				VPSRLD(Imm(uint64(min(2*i, 4))), acc[4*j+i], acc[4*j+i])
			}
		}
		place := func(add bool) {
			for j := range nq {
				for i, a := range acc[4*j : 4*j+4] {
					m, t := Mem{Base: o, Disp: 32 * i}, YMM()
					if both {
						VEXTRACTI64X4(Imm(1), a, t)
						if add {
							VPADDD(m.Offset(128), t, t)
						}
						VMOVDQU32(t, m.Offset(128))
					}
					if add {
						VPADDD(m, a.AsY(), a.AsY())
					}
					VMOVDQU32(a.AsY(), m)
				}
				if j+1 < nq {
					LEAQ(Mem{Base: o, Index: width, Scale: 4}, o)
				}
			}
		}
		CMPB(arg("add"), Imm(0))
		JNE(LabelRef(name + "Add"))
		place(false)
		JMP(LabelRef(name + "Placed"))
		Label(name + "Add")
		place(true)
		Label(name + "Placed")
	}
	Label("group")
	r := GP64()
	MOVQ(width, r)
	SUBQ(channel, r)
	CMPQ(r, Imm(32))
	JEQ(LabelRef("half"))
	quads("quad", true)
	ADDQ(U32(256), out)
	ADDQ(Imm(64), channel)
	CMPQ(channel, width)
	JLT(LabelRef("group"))
	JMP(LabelRef("done"))
	Label("half")
	quads("halfQuad", false)
	Label("done")
	VZEROUPPER()
	RET()
}
