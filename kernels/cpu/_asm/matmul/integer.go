package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// kind is a block format as it lies in a panel.
type kind struct {
	name   string
	super  int // blocks of 32 in a unit with one header: 1 or 8
	header int // bytes before the blocks: f16 scales d, then minima's
	block  int // bytes of a block
	subs   int // scales of a block
	min    bool
	// depth is the number of vpmaddubsw results (of nibbles in Q8_0) that fit into
	// int16.
	depth int
	// fix is the field of the activations' tail that corrects the integer sum
	// for the codes' offset at AVX512, and at AVX2; -1 for none.
	fix512, fix2 int
}

// The fields of the activations' tail: see package matmul.
const (
	fieldScale = iota
	fieldSum
	fix128
	fix8
	fix32
)

const (
	codes8 = 32 * panel
	codes4 = codes8 / 2
	codes2 = codes8 / 4
	codes1 = codes8 / 8
)

var kinds = []kind{
	{name: "Q8_0", super: 1, block: codes8 + 2*panel, subs: 1, depth: 8, fix512: fix128, fix2: fix128},
	{name: "Q4_0", super: 1, block: codes4 + 2*panel, subs: 1, depth: 8, fix512: fix8, fix2: fix8},
	{name: "Q4_K", super: 8, header: 4 * panel, block: codes4 + 2*panel, subs: 1, min: true, depth: 8, fix512: -1, fix2: -1},
	{name: "Q5_K", super: 8, header: 4 * panel, block: codes4 + codes1 + 2*panel, subs: 1, min: true, depth: 4, fix512: -1, fix2: -1},
	{name: "Q6_K", super: 8, header: 2 * panel, block: codes4 + codes2 + 2*panel, subs: 2, depth: 2, fix512: fix32, fix2: fix32},
}

// intT is a tile of integer products.
type intT struct {
	*tile
	kind
	head reg.Register // the unit's header
	next int          // first free register after the sums of floats
}

// intTile multiplies m rows of int8 activations by a panel of codes.
func intTile(i isa, k kind, m int, pair bool) {
	parts := 1
	if i.name == "AVX2" {
		parts = []int{1, 1, 2, 4, 4}[m]
	}
	t := &intT{tile: i.start(k.name[:2]+k.name[3:], m, parts, pair, fmt.Sprintf("n units of %d·32 codes of %s", k.super, k.name)), kind: k}
	t.loadSums()
	t.next = t.m * t.v
	if i.bytes == 64 {
		t.masks512()
	}
	if k.super == 1 {
		Label("loop")
		t.oneBlock()
		DECQ(t.n)
		JNE(LabelRef("loop"))
		t.finish()
		return
	}
	t.head = GP64()
	count := GP64()
	Label("loop")
	MOVQ(t.w, t.head)
	advance(t.w, k.header)
	MOVL(U32(k.super), count.As32())
	Label("block")
	t.oneBlock()
	DECQ(count)
	JNE(LabelRef("block"))
	DECQ(t.n)
	JNE(LabelRef("loop"))
	t.finish()
}

// act is dword q of row r's codes, tail its field f.
func (t *intT) act(q, r int) Mem  { return Mem{Base: t.x, Disp: 4 * (q*t.m + r)} }
func (t *intT) tail(f, r int) Mem { return t.act(8+f, r) }

func (t *intT) oneBlock() {
	for sub := range t.subs {
		if t.bytes == 64 {
			t.dots512(sub)
		} else {
			t.dots2(sub)
		}
		t.scale(sub)
	}
	advance(t.w, t.block)
	advance(t.x, 4*14*t.m)
}

// integer is the register of the integer sum of row r, vector v.
func (t *intT) integer(r, v int) reg.VecPhysical { return t.vec[t.next+r*t.v+v] }

// free is the registers beyond both sums.
func (t *intT) free() []reg.VecPhysical { return t.vec[2*t.m*t.v:] }

// dots512 leaves the integer sums of a sub-block, offset of the codes included.
func (t *intT) dots512(sub int) {
	for r := range t.m {
		for v := range t.v {
			if t.fix512 < 0 {
				zero(t.integer(r, v))
			} else {
				VPBROADCASTD(t.tail(t.fix512+sub, r), t.integer(r, v))
			}
		}
	}
	free := t.free()
	w, tmp, x := free[:t.v], free[t.v], free[t.v+1:]
	for q := sub * 8 / t.subs; q < (sub+1)*8/t.subs; q++ {
		for v := range t.v {
			t.code(q, v, w[v], tmp)
		}
		for r := range t.m {
			b := x[r%min(len(x), 2)]
			VPBROADCASTD(t.act(q, r), b)
			for v := range t.v {
				VPDPBUSD(b, w[v], t.integer(r, v))
			}
		}
	}
}

// dots2 does it by vpmaddubsw: depth of its results are added as int16, then
// vpmaddwd widens the pair sums. Codes of eight bits are too large for that and
// are taken as two nibbles: to take |w| by x with w's sign instead needs the
// multiplier's ports three times.
func (t *intT) dots2(sub int) {
	if t.name == "Q8_0" {
		t.bytes2()
	} else {
		t.shorts2(sub)
	}
	if t.fix2 < 0 {
		return
	}
	tmp := t.free()[0]
	for r := range t.m {
		VPBROADCASTD(t.tail(t.fix2+sub, r), tmp)
		for v := range t.v {
			VPADDD(tmp, t.integer(r, v), t.integer(r, v))
		}
	}
}

func (t *intT) shorts2(sub int) {
	free := t.free()
	short := t.integer // one run of int16 can take place in the integer sums
	if t.depth < 8 {
		runs := free
		short = func(r, v int) reg.VecPhysical { return runs[r*t.v+v] }
		free = free[t.m*t.v:]
	}
	w, tmp, x := free[0], free[1], free[2:]
	lo, hi := sub*8/t.subs, (sub+1)*8/t.subs
	for q := lo; q < hi; q++ {
		for v := range t.v {
			t.code(q, v, w, tmp)
			for r := range t.m {
				b := x[r%len(x)]
				if v == 0 || t.m > len(x) {
					VPBROADCASTD(t.act(q, r), b)
				}
				if (q-lo)%t.depth == 0 {
					VPMADDUBSW(b, w, short(r, v))
					continue
				}
				VPMADDUBSW(b, w, tmp)
				VPADDW(tmp, short(r, v), short(r, v))
			}
		}
		if (q-lo)%t.depth == t.depth-1 {
			t.widenSums(q-lo < t.depth, short, tmp)
		}
	}
}

// bytes2 is shorts2 for codes of eight bits.
func (t *intT) bytes2() {
	free := t.free()
	low, high := t.integer, func(r, v int) reg.VecPhysical { return free[r*t.v+v] }
	rest := free[t.m*t.v:]
	wl, wh, tmp, x := rest[0], rest[1], rest[2], rest[3]
	for q := range 8 {
		for v := range t.v {
			at := t.at(t.w, q*4*panel, v, 4)
			t.nibbles(false, at, wl)
			t.nibbles(true, at, wh)
			for r := range t.m {
				VPBROADCASTD(t.act(q, r), x)
				if q == 0 {
					VPMADDUBSW(x, wl, low(r, v))
					VPMADDUBSW(x, wh, high(r, v))
					continue
				}
				VPMADDUBSW(x, wl, tmp)
				VPADDW(tmp, low(r, v), low(r, v))
				VPMADDUBSW(x, wh, tmp)
				VPADDW(tmp, high(r, v), high(r, v))
			}
		}
	}
	for r := range t.m {
		for v := range t.v {
			VPMADDWD(t.constant("ones", 0x0001000100010001), low(r, v), low(r, v))
			VPMADDWD(t.constant("sixteens", 0x0010001000100010), high(r, v), high(r, v))
			VPADDD(high(r, v), low(r, v), low(r, v))
		}
	}
}

// widenSums adds the int16 pair sums of a run to the integer sums.
func (t *intT) widenSums(first bool, short func(r, v int) reg.VecPhysical, tmp reg.VecPhysical) {
	for r := range t.m {
		for v := range t.v {
			if first {
				VPMADDWD(t.constant("ones", 0x0001000100010001), short(r, v), t.integer(r, v))
				continue
			}
			VPMADDWD(t.constant("ones", 0x0001000100010001), short(r, v), tmp)
			VPADDD(tmp, t.integer(r, v), t.integer(r, v))
		}
	}
}

// code puts quad q of vector v into to: four consecutive codes of each output.
func (t *intT) code(q, v int, to, tmp reg.VecPhysical) {
	if t.name == "Q8_0" {
		t.move(t.at(t.w, q*4*panel, v, 4), to)
		return
	}
	t.nibbles(q%2 == 1, t.at(t.w, t.planes()+q/2*4*panel, v, 4), to)
	switch t.name {
	case "Q5_K": // bit q of byte j of an output's dword is bit 4 of code 4q+j
		t.plane(t.at(t.w, 0, v, 4), 4-q, to, tmp)
	case "Q6_K": // likewise the pair q%4 of half q/4
		t.plane(t.at(t.w, q/4*4*panel, v, 4), 4-2*(q%4), to, tmp)
	}
}

// nibbles takes the low or the high four bits of the bytes of m.
func (t *intT) nibbles(high bool, m Mem, to reg.VecPhysical) {
	if t.bytes == 64 {
		if !high {
			VPANDD(m, maskLow, to)
			return
		}
		VPSRLD(Imm(4), m, to)
		VPANDD(maskLow, to, to)
		return
	}
	t.move(m, to)
	if high {
		VPSRLD(Imm(4), to, to)
	}
	VPAND(t.constant("low", 0x0f0f0f0f0f0f0f0f), to, to)
}

// Registers of AVX-512 that no tile needs for sums or operands.
var maskLow, maskPlane = reg.Z31, reg.Z30

func (t *intT) masks512() {
	if t.name != "Q8_0" {
		broadcast(0x0f0f0f0f, maskLow)
	}
	if bits := uint32(t.planeMask()); bits != 0 {
		broadcast(bits, maskPlane)
	}
}

// planeMask is the bits of a code's byte that do not lie in its nibble.
func (k kind) planeMask() uint64 {
	switch k.name {
	case "Q5_K":
		return 0x1010101010101010
	case "Q6_K":
		return 0x3030303030303030
	}
	return 0
}

// planes is the bytes of the planes, which come before the nibbles.
func (k kind) planes() int { return k.block - codes4 - 2*panel }

// plane ors those bits of m, shifted left, into to.
func (t *intT) plane(m Mem, left int, to, tmp reg.VecPhysical) {
	var from Op = m
	if t.bytes == 32 && left != 0 { // VEX shifts by an immediate have no memory form
		t.move(m, tmp)
		from = tmp
	}
	switch {
	case left > 0:
		VPSLLD(Imm(uint64(left)), from, tmp)
	case left < 0:
		VPSRLD(Imm(uint64(-left)), from, tmp)
	default:
		t.move(m, tmp)
	}
	if t.bytes == 64 {
		VPTERNLOGD(Imm(0xf8), maskPlane, tmp, to) // to | tmp & mask
		return
	}
	VPAND(t.constant("plane"+t.name[:2], t.planeMask()), tmp, tmp)
	VPOR(tmp, to, to)
}

// scale adds the sub-block to the sums: sum += integer·(w's scale · x's scale),
// and takes off the minima: sum -= minimum·Σx.
func (t *intT) scale(sub int) {
	for r := range t.m {
		for v := range t.v {
			VCVTDQ2PS(t.integer(r, v), t.integer(r, v))
		}
	}
	free := t.free()
	w, tmp := free[:t.v], free[t.v]
	if t.bytes == 32 {
		w, tmp = []reg.VecPhysical{free[0], free[0], free[0], free[0]}, free[1]
	}
	end := t.block - 2*panel // the scales close a block
	t.eachVector(func(v int) {
		if t.super == 1 {
			VCVTPH2PS(t.at(t.w, end, v, 2), w[v])
			return
		}
		if t.name == "Q6_K" {
			VPMOVSXBD(t.at(t.w, end+sub*panel, v, 1), w[v])
		} else {
			VPMOVZXBD(t.at(t.w, end, v, 1), w[v])
		}
		VCVTDQ2PS(w[v], w[v])
		VCVTPH2PS(t.at(t.head, 0, v, 2), tmp)
		VMULPS(tmp, w[v], w[v])
	}, func(r, v int) {
		t.times(t.tail(fieldScale, r), w[v], tmp)
		VFMADD231PS(tmp, t.integer(r, v), t.sum(r, v))
	})
	if !t.min {
		return
	}
	t.eachVector(func(v int) {
		VPMOVZXBD(t.at(t.w, end+panel, v, 1), w[v])
		VCVTDQ2PS(w[v], w[v])
		VCVTPH2PS(t.at(t.head, 2*panel, v, 2), tmp)
		VMULPS(tmp, w[v], w[v])
	}, func(r, v int) {
		VBROADCASTSS(t.tail(fieldSum, r), tmp)
		VFNMADD231PS(tmp, w[v], t.sum(r, v))
	})
}

func (t *intT) eachVector(prepare func(v int), use func(r, v int)) {
	for v := range t.v {
		prepare(v)
		for r := range t.m {
			use(r, v)
		}
	}
}

// times is to = scalar·a.
func (t *intT) times(scalar Mem, a, to reg.VecPhysical) {
	if t.bytes == 64 {
		VMULPS_BCST(scalar, a, to)
		return
	}
	VBROADCASTSS(scalar, to)
	VMULPS(a, to, to)
}

func (t *intT) move(m Mem, to reg.VecPhysical) {
	if t.bytes == 64 {
		VMOVDQU32(m, to)
	} else {
		VMOVDQU(m, to)
	}
}

var constants = map[string]Mem{}

// constant is 32 bytes of a repeated pattern.
func (t *tile) constant(name string, bits uint64) Mem {
	m, ok := constants[name]
	if !ok {
		m = GLOBL(name+t.isa.name, RODATA|NOPTR)
		for i := range 4 {
			DATA(8*i, U64(bits))
		}
		constants[name] = m
	}
	return m
}
