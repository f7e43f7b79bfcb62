// Command matmul generates the micro-kernels of package kernels/cpu/matmul for
// one level of amd64: tiles of some activation rows by the 32 outputs of a panel.
// The package's documentation has the layouts.
package main

import (
	"flag"
	"fmt"
	"log"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// panel is the number of outputs of a panel.
const panel = 32

// isa is what differs between the levels: the registers, and how many rows the
// largest tiles have so that their sums fit into them.
type isa struct {
	name      string
	vec       []reg.VecPhysical
	bytes     int // of a register
	floatRows int
	intRows   int
}

var (
	avx2   = isa{"AVX2", []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15}, 32, 6, 4}
	avx512 = isa{"AVX512", []reg.VecPhysical{
		reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15,
		reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31,
	}, 64, 12, 6}
)

// lanes is the number of float32 of a register.
func (i isa) lanes() int { return i.bytes / 4 }

func main() {
	level := flag.String("level", "", "avx2 or avx512")
	flag.Parse()
	i, ok := map[string]isa{"avx2": avx2, "avx512": avx512}[*level]
	if !ok {
		log.Fatalf("no level %q", *level)
	}
	ConstraintExpr("!purego")
	for _, d := range []string{"F32", "BF16", "F16"} {
		for m := 1; m <= i.floatRows; m++ {
			floatTile(i, d, m, false)
		}
		if d != "F32" {
			floatTile(i, d, 1, true)
		}
	}
	for _, k := range kinds {
		for m := 1; m <= i.intRows; m++ {
			intTile(i, k, m, false)
		}
		if i.name == "AVX512" && k.name != "Q8_0" { // AVX2 has too few registers; Q8_0 has no use for it
			intTile(i, k, 1, true)
		}
	}
	if i.name == "AVX2" { // AVX-512 has no better ones
		interleave()
		encode()
	}
	Generate()
}

// tile is what all tiles start with: their arguments, and how their m rows of
// sums lie in registers.
type tile struct {
	isa
	m, v       int // rows and registers of a row
	y, ld      reg.Register
	x, w, n, h reg.Register // h is the part's first output, nil where there is one part
	second     reg.Register // of a pair of panels: how far the second is from the first
}

// start declares a tile. Where a panel's 32 outputs by m rows do not fit into
// the registers, the tile works in parts of fewer outputs. A pair is two panels
// whose outputs are neighbours: two streams of weights instead of one.
func (i isa) start(dtype string, m, parts int, pair bool, doc string) *tile {
	name := fmt.Sprintf("tile%sx%d%s", dtype, m, i.name)
	signature, outputs := "func(y *float32, ldy int, x *byte, w *byte, n int, load bool)", panel
	if pair {
		name, outputs = "pair"+dtype+i.name, 2*panel
		signature = "func(y *float32, stride int, x *byte, w *byte, n int, load bool)"
	}
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s computes %d×%d outputs from %s.", name, m, outputs, doc))
	t := &tile{isa: i, m: m, v: outputs / i.lanes() / parts}
	if parts > 1 {
		h := GP64()
		XORL(h.As32(), h.As32())
		t.h = h
		Label("part")
	}
	t.y = Load(Param("y"), GP64())
	if pair {
		t.second = Load(Param("stride"), GP64())
	} else {
		t.ld = Load(Param("ldy"), GP64())
		SHLQ(Imm(2), t.ld)
	}
	t.x, t.w, t.n = Load(Param("x"), GP64()), Load(Param("w"), GP64()), Load(Param("n"), GP64())
	if parts > 1 {
		LEAQ(Mem{Base: t.y, Index: t.h, Scale: 4}, t.y)
	}
	return t
}

// at is the place of the outputs of vector v in a run of size bytes per output.
func (t *tile) at(base reg.Register, disp, v, size int) Mem {
	perPanel := panel / t.lanes()
	m := Mem{Base: base, Disp: disp + v%perPanel*t.lanes()*size}
	switch {
	case t.h != nil:
		m.Index, m.Scale = t.h, uint8(size)
	case v >= perPanel:
		m.Index, m.Scale = t.second, 1
	}
	return m
}

// sum is the register of row r, vector v of the sums.
func (t *tile) sum(r, v int) reg.VecPhysical { return t.vec[r*t.v+v] }

// loadSums starts from zero, or from y where load says so.
func (t *tile) loadSums() {
	for i := range t.m * t.v {
		zero(t.vec[i])
	}
	load := Load(Param("load"), GP8())
	TESTB(load, load)
	JE(LabelRef("zeroed"))
	t.eachRow(func(r int, y Mem) {
		for v := range t.v {
			VMOVUPS(y.Offset(v*t.bytes), t.sum(r, v))
		}
	})
	Label("zeroed")
}

// finish stores the sums, and goes back for the next part.
func (t *tile) finish() {
	t.eachRow(func(r int, y Mem) {
		for v := range t.v {
			VMOVUPS(t.sum(r, v), y.Offset(v*t.bytes))
		}
	})
	if t.h != nil {
		advance(t.h, t.v*t.lanes())
		CMPQ(t.h, Imm(panel))
		JNE(LabelRef("part"))
	}
	VZEROUPPER()
	RET()
}

func (t *tile) eachRow(f func(r int, y Mem)) {
	p := GP64()
	MOVQ(t.y, p)
	for r := range t.m {
		if r > 0 {
			ADDQ(t.ld, p)
		}
		f(r, Mem{Base: p})
	}
}

// zero clears a register of any width.
func zero(r reg.VecPhysical) {
	if r.Size() == 64 {
		VPXORD(r, r, r)
	} else {
		VPXOR(r, r, r)
	}
}

// advance moves a pointer on by n bytes.
func advance(r reg.Register, n int) { ADDQ(U32(n), r) }

// broadcast sets all dwords of a register of AVX-512.
func broadcast(bits uint32, to reg.VecPhysical) {
	g := GP32()
	MOVL(U32(bits), g)
	VPBROADCASTD(g, to)
}
