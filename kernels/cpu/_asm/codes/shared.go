package main

import (
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
