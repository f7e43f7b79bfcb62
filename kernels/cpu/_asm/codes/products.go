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

// pages is the loop over pages: every kernel here takes some pages' slices and the
// offset of a plane in them, and fetches as it goes along a stretch of other pages
// (next, from), stride bytes for each step of its inner loop.
type pages struct {
	plane, ahead, stride reg.Register
}

const pageArgs = "pages *[]byte, n, off, width, rows int, next *[]byte, from, stride int"

func arg(name string) Mem {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return a.Addr
}

// each runs body for every page.
func each(body func(p *pages)) {
	p := &pages{GP64(), GP64(), Load(Param("stride"), GP64())}
	Label("page")
	r := GP64()
	MOVQ(arg("pages"), r)
	MOVQ(Mem{Base: r}, p.plane)
	ADDQ(arg("off"), p.plane)
	MOVQ(arg("next"), r)
	MOVQ(Mem{Base: r}, p.ahead)
	ADDQ(arg("from"), p.ahead)
	body(p)
	ADDQ(Imm(24), arg("pages")) // the size of a slice
	ADDQ(Imm(24), arg("next"))
	DECQ(arg("n"))
	JNZ(LabelRef("page"))
}

// fetch asks for the next line ahead, and the one after it.
func (p *pages) fetch() {
	PREFETCHT1(Mem{Base: p.ahead})
	PREFETCHT1(Mem{Base: p.ahead, Disp: 64})
	ADDQ(p.stride, p.ahead)
}

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

func zmms(n int) []reg.VecVirtual {
	var r []reg.VecVirtual
	for range n {
		r = append(r, ZMM())
	}
	return r
}

// consts are the masks of a byte's bit pairs.
var consts = struct {
	pair   [4]Mem
	ones   Mem // 16-bit, a register of them
	eighth Mem
}{
	[4]Mem{bytes("pair0", 0x03030303), bytes("pair1", 0x0c0c0c0c), bytes("pair2", 0x30303030), bytes("pair3", 0xc0c0c0c0)},
	words("ones", 0x00010001),
	float("eighth", 0.125),
}

// words is a register's worth of x.
func words(name string, x uint32) Mem {
	m := GLOBL(name, 8|16)
	for i := range 16 {
		DATA(4*i, U32(x))
	}
	return m
}
