package main

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

// level is what differs between the levels: whether there is SDOT, and how many
// rows the largest tile of codes has.
type level struct {
	name string
	dot  bool
	rows int
}

// kind is a block format as it lies in a panel.
type kind struct {
	name   string
	super  int // blocks of 32 in a unit with one header: 1 or 8
	header int // bytes before the blocks: f16 scales d, then minima's
	block  int // bytes of a block
	subs   int // scales of a block
	min    bool
	// fix is the field of the activations' tail that corrects the integer sum for
	// the codes' offset; -1 for none.
	fix int
}

// The fields of the activations' tail: see package matmul.
const (
	fieldScale = 8 + iota
	fieldSum
	_ // of codes with an excess of 128
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
	{name: "Q8_0", super: 1, block: codes8 + 2*panel, subs: 1, fix: -1},
	{name: "Q4_0", super: 1, block: codes4 + 2*panel, subs: 1, fix: fix8},
	{name: "Q4_K", super: 8, header: 4 * panel, block: codes4 + 2*panel, subs: 1, min: true, fix: -1},
	{name: "Q5_K", super: 8, header: 4 * panel, block: codes4 + codes1 + 2*panel, subs: 1, min: true, fix: -1},
	{name: "Q6_K", super: 8, header: 2 * panel, block: codes4 + codes2 + 2*panel, subs: 2, fix: fix32},
}

// intT is a tile of integer products. After the sums of floats come registers of
// integer sums; V30 and V31 are masks of kinds that need them.
type intT struct {
	tile
	kind
	free *ring // registers beyond all sums
}

// The masks of nibbles, and of the bits of a code that do not lie in its nibble.
const vLow, vPlane = neon.V(31), neon.V(30)

// intTile multiplies m rows of int8 activations by a panel of codes.
func intTile(out *neon.File, l level, k kind, m int) {
	v := []int{0, 8, 4, 2, 2, 2, 2}[m]
	name := fmt.Sprintf("tile%sx%d%s", k.name[:2]+k.name[3:], m, l.name)
	t := &intT{tile: start(out, name, m, v, fmt.Sprintf("n units of %d·32 codes of %s", k.super, k.name)), kind: k}
	sums := 3 * m * v // without SDOT an integer sum is two registers until the end
	if l.dot {
		sums = 2 * m * v
	}
	t.free = &ring{first: neon.V(sums), n: neon.V(32 - sums)}
	if k.name != "Q8_0" {
		t.Words(0x0f0f0f0f, vLow)
		t.free.n--
	}
	if bits := map[string]uint32{"Q5_K": 0x10101010, "Q6_K": 0x30303030}[k.name]; bits != 0 {
		t.Words(bits, vPlane)
		t.free.n--
	}
	t.Label("loop")
	if k.super > 1 {
		t.Go("ADD $%d, %v", k.header, rCodes)
		t.Go("ADD $%d, %v", k.header, rBytes)
		t.Go("MOVD $%d, %v", k.super, rBlocks)
		t.Label("block")
	}
	for sub := range t.subs {
		switch {
		case l.dot:
			t.dots(sub)
		case k.name == "Q8_0":
			t.bytes()
		default:
			t.shorts(sub)
		}
		t.scale(sub)
	}
	t.Go("ADD $%d, %v", k.block, rCodes)
	t.Go("ADD $%d, %v", 4*14*m, rAct)
	if k.super > 1 {
		t.Go("ADD $%d, %v", k.block, rBytes)
		t.Go("SUBS $1, %v", rBlocks)
		t.Go("BNE block")
	}
	t.Go("ADD $%d, %v", k.header+k.super*k.block, rHalfs)
	t.Go("SUBS $1, %v", rLeft)
	t.Go("BNE loop")
	t.finish()
}

// integer is the register of the integer sum of row r, vector v; without SDOT a
// second one has a part of it.
func (t *intT) integer(r, v int) neon.V { return neon.V((t.m+r)*t.v + v) }
func (t *intT) second(r, v int) neon.V  { return neon.V((2*t.m+r)*t.v + v) }

// spread loads dword f of row r's record into all lanes.
func (t *intT) spread(f, r int, to neon.V) { t.Spread(rAct, 4*(f*t.m+r), to) }

// quads is the first quad of the sub-block and the one after its last.
func (t *intT) quads(sub int) (lo, hi int) { return sub * 8 / t.subs, (sub + 1) * 8 / t.subs }

// dots leaves the integer sums of a sub-block, by SDOT.
func (t *intT) dots(sub int) {
	for r := range t.m {
		for v := range t.v {
			if t.fix < 0 {
				t.Zero(t.integer(r, v))
			} else if v == 0 {
				t.spread(t.fix+sub, r, t.integer(r, 0))
			} else {
				t.MOV(t.integer(r, v), t.integer(r, 0))
			}
		}
	}
	// Four dwords of activations to a register; a quad's lie in two at most.
	x := [2]neon.V{t.free.first, t.free.first + 1}
	rest := &ring{first: x[1] + 1, n: t.free.n - 2}
	lo, hi := t.quads(sub)
	loaded := lo * t.m / 4
	for q := lo; q < hi; q++ {
		for ; 4*loaded < (q+1)*t.m; loaded++ {
			t.Load(16, rAct, 16*loaded, x[loaded%2])
		}
		for v := range t.v {
			w := rest.take()
			t.code(q, v, w, rest)
			for r := range t.m {
				i := q*t.m + r
				t.SDOT(t.integer(r, v), w, x[i/4%2], uint32(i%4))
			}
		}
	}
}

// shorts leaves the integer sums of a sub-block of codes up to 63: 16-bit sums of
// one product of every quad (eight of 31·127, four of 63·127), then of the
// neighbours.
func (t *intT) shorts(sub int) {
	lo, hi := t.quads(sub)
	few := neon.V(min(t.m, t.v)) // of these all are kept, of the others one at a time
	rest := &ring{first: t.free.first + few, n: t.free.n - few}
	take := func(kept bool, i int) neon.V {
		if kept {
			return t.free.first + neon.V(i)
		}
		return rest.take()
	}
	for q := lo; q < hi; q++ {
		t.products(func(r int) neon.V {
			x := take(t.m <= t.v, r)
			t.spread(q, r, x)
			return x
		}, func(v int) neon.V {
			w := take(t.m > t.v, v)
			t.code(q, v, w, rest)
			return w
		}, func(r, v int, x, w neon.V) {
			multiply := t.SMLAL
			if q == lo {
				multiply = t.SMULL
			}
			multiply(t.integer(r, v), w, x, false)
			multiply(t.second(r, v), w, x, true)
		})
	}
	for r := range t.m {
		for v := range t.v {
			a, b := t.integer(r, v), t.second(r, v)
			t.SADDLP(neon.H8, a, a)
			t.SADDLP(neon.H8, b, b)
			t.ADDP(neon.S4, a, a, b)
		}
	}
	if t.fix < 0 {
		return
	}
	for r := range t.m {
		fix := t.free.take()
		t.spread(t.fix+sub, r, fix)
		for v := range t.v {
			t.ADD(neon.S4, t.integer(r, v), t.integer(r, v), fix)
		}
	}
}

// products calls use for every row and vector, with what row and vector made: the
// fewer of them are made first.
func (t *intT) products(row, vector func(i int) neon.V, use func(r, v int, x, w neon.V)) {
	if t.m <= t.v {
		var x []neon.V
		for r := range t.m {
			x = append(x, row(r))
		}
		for v := range t.v {
			w := vector(v)
			for r := range t.m {
				use(r, v, x[r], w)
			}
		}
		return
	}
	var w []neon.V
	for v := range t.v {
		w = append(w, vector(v))
	}
	for r := range t.m {
		x := row(r)
		for v := range t.v {
			use(r, v, x, w[v])
		}
	}
}

// bytes is shorts for codes of eight bits: 16 bits hold two products.
func (t *intT) bytes() {
	first := t.free.first
	pair := func(of, i int) neon.V { return first + neon.V(2*(of+i)) }
	products := [2]neon.V{first + t.free.n - 2, first + t.free.n - 1}
	few := min(t.m, t.v) // of these the pairs stay, of the others one at a time
	for q := 0; q < 8; q += 2 {
		load := func(kept bool, i int, load func(q int, to neon.V)) neon.V {
			at := pair(few, 0)
			if kept {
				at = pair(0, i)
			}
			load(q, at)
			load(q+1, at+1)
			return at
		}
		t.products(func(r int) neon.V {
			return load(t.m <= t.v, r, func(q int, to neon.V) { t.spread(q, r, to) })
		}, func(v int) neon.V {
			return load(t.m > t.v, v, func(q int, to neon.V) { t.Load(16, rCodes, q*4*panel+16*v, to) })
		}, func(r, v int, x, w neon.V) {
			for half, sum := range []neon.V{t.integer(r, v), t.second(r, v)} {
				p := products[half]
				t.SMULL(p, w, x, half == 1)
				t.SMLAL(p, w+1, x+1, half == 1)
				if q == 0 {
					t.SADDLP(neon.H8, sum, p)
				} else {
					t.SADALP(neon.H8, sum, p)
				}
			}
		})
	}
	for r := range t.m {
		for v := range t.v {
			t.ADDP(neon.S4, t.integer(r, v), t.integer(r, v), t.second(r, v))
		}
	}
}

// code puts quad q of vector v into to: four consecutive codes of each output.
func (t *intT) code(q, v int, to neon.V, free *ring) {
	if t.name == "Q8_0" {
		t.Load(16, rCodes, q*4*panel+16*v, to)
		return
	}
	planes := t.block - codes4 - 2*panel // which come before the nibbles
	t.Load(16, rCodes, planes+q/2*4*panel+16*v, to)
	if q%2 == 0 {
		t.AND(to, to, vLow)
	} else {
		t.USHR(neon.B16, to, to, 4)
	}
	switch t.name {
	case "Q5_K": // bit q of byte j of an output's dword is bit 4 of code 4q+j
		t.plane(16*v, 4-q, to, free.take())
	case "Q6_K": // likewise the pair q%4 of half q/4
		t.plane(q/4*4*panel+16*v, 4-2*(q%4), to, free.take())
	}
}

// plane ors the bits of the plane at, shifted left, into to.
func (t *intT) plane(at, left int, to, tmp neon.V) {
	t.Load(16, rCodes, at, tmp)
	switch {
	case left > 0:
		t.SHL(neon.B16, tmp, tmp, uint32(left))
	case left < 0:
		t.USHR(neon.B16, tmp, tmp, uint32(-left))
	}
	t.AND(tmp, tmp, vPlane)
	t.ORR(to, to, tmp)
}

// scale adds the sub-block to the sums: sum += integer·(w's scale · x's scale),
// and takes off the minima: sum -= minimum·Σx.
func (t *intT) scale(sub int) {
	end := t.block - 2*panel // the scales close a block
	for v := range t.v {
		w, d, x := t.free.take(), t.free.take(), t.free.take()
		if t.super == 1 {
			t.Load(8, rHalfs, end+8*v, w)
			t.FCVTL(neon.S4, w, w, false)
		} else {
			t.small(end+sub*panel+4*v, 8*v, t.name == "Q6_K", w, d)
		}
		for r := range t.m {
			t.spread(fieldScale, r, x)
			t.FMUL(neon.S4, x, x, w)
			t.SCVTF(neon.S4, t.integer(r, v), t.integer(r, v))
			t.FMLA(neon.S4, t.sum(r, v), t.integer(r, v), x)
		}
		if !t.min {
			continue
		}
		t.small(end+panel+4*v, 2*panel+8*v, false, w, d)
		for r := range t.m {
			t.spread(fieldSum, r, x)
			t.FMLS(neon.S4, t.sum(r, v), x, w)
		}
	}
}

// small is the products of the block's bytes at with the unit's float16 numbers.
func (t *intT) small(at, half int, signed bool, to, tmp neon.V) {
	widen := t.UXTL
	if signed {
		widen = t.SXTL
	}
	t.Load(4, rBytes, at, to)
	widen(neon.H8, to, to, false)
	widen(neon.S4, to, to, false)
	t.SCVTF(neon.S4, to, to)
	t.Load(8, rHalfs, half, tmp)
	t.FCVTL(neon.S4, tmp, tmp, false)
	t.FMUL(neon.S4, to, to, tmp)
}
