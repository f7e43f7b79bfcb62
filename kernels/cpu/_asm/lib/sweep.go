package lib

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// labels numbers the labels of a generator's loops.
var labels int

// NewLabel makes a new label's name.
func NewLabel(name string) string {
	labels++
	return fmt.Sprintf("%s%d", name, labels)
}

// Step is one vector of a sweep over arrays: whole, or what is left at their
// end.
type Step struct {
	U    int // the number of the vector within an unrolled round
	isa  ISA
	i    reg.Register // index of the round's first element
	n    reg.Register // elements left; those of the tail
	mask reg.Register // nil: whole
}

// At is the address of the step's elements, of size bytes each, of an array.
func (s Step) At(base reg.Register, size int) Mem {
	return Mem{Base: base, Index: s.i, Scale: uint8(size), Disp: s.U * s.isa.Lanes() * size}
}

// Index is the register with the index of the round's first element.
func (s Step) Index() reg.Register { return s.i }

// Mask is a tail's mask: an opmask register of a wide set, else a vector.
func (s Step) Mask() reg.Register { return s.mask }

// Tail is whether the step may be less than a vector.
func (s Step) Tail() bool { return s.mask != nil }

// Load loads 32-bit elements; lanes beyond the end become 0.
func (s Step) Load(m Mem, v reg.VecVirtual) {
	switch {
	case s.mask == nil:
		VMOVUPS(m, v)
	case s.isa.Wide():
		VMOVUPS_Z(m, s.mask, v)
	default:
		VMASKMOVPS(m, s.mask, v)
	}
}

// LoadOr is Load with other's lanes beyond the end. It is for tails of values
// for which 0 is no neutral element.
func (s Step) LoadOr(m Mem, other, v reg.VecVirtual) {
	switch {
	case s.mask == nil:
		VMOVUPS(m, v)
	case s.isa.Wide():
		VMOVAPS(other, v)
		VMOVUPS(m, s.mask, v)
	default:
		VMASKMOVPS(m, s.mask, v)
		VBLENDVPS(s.mask, v, other, v)
	}
}

// Store stores 32-bit elements, none beyond the end.
func (s Step) Store(v reg.VecVirtual, m Mem) {
	switch {
	case s.mask == nil:
		VMOVUPS(v, m)
	case s.isa.Wide():
		VMOVUPS(v, s.mask, m)
	default:
		VMASKMOVPS(v, s.mask, m)
	}
}

// Sweep calls body for every vector of arrays of n elements (a register, which
// it changes): rounds of unroll vectors, then single ones, then the rest under a
// mask. What body adds up depends on n and nothing else.
func (s ISA) Sweep(n reg.Register, unroll int, body func(Step)) {
	i := GP64()
	XORQ(i, i)
	rounds, singles, rest, done := NewLabel("rounds"), NewLabel("singles"), NewLabel("rest"), NewLabel("done")
	lanes := s.Lanes()
	if unroll > 1 {
		Label(rounds)
		CMPQ(n, U32(unroll*lanes))
		JL(LabelRef(singles))
		for u := range unroll {
			body(Step{U: u, isa: s, i: i})
		}
		ADDQ(U32(unroll*lanes), i)
		SUBQ(U32(unroll*lanes), n)
		JMP(LabelRef(rounds))
	}
	Label(singles)
	CMPQ(n, U32(lanes))
	JL(LabelRef(rest))
	body(Step{isa: s, i: i})
	ADDQ(U32(lanes), i)
	SUBQ(U32(lanes), n)
	JMP(LabelRef(singles))
	Label(rest)
	TESTQ(n, n)
	JZ(LabelRef(done))
	body(Step{isa: s, i: i, n: n, mask: s.tail(n)})
	Label(done)
}

// tail makes the mask of the first n lanes, 0 < n < lanes.
func (s ISA) tail(n reg.Register) reg.Register {
	if s.Wide() {
		MOVQ(n, reg.RCX)
		ones := GP32()
		MOVL(U32(1), ones)
		SHLL(reg.CL, ones)
		DECL(ones)
		k := K()
		KMOVW(ones, k)
		return k
	}
	table := GP64()
	LEAQ(tailTable(), table)
	k, at := YMM(), GP64()
	MOVQ(n, at)
	NEGQ(at)
	VMOVUPS(Mem{Base: table, Index: at, Scale: 4, Disp: 32}, k)
	return k
}

var tails *Mem

// tailTable is eight lanes of ones and then eight of zeros.
func tailTable() Mem {
	if tails == nil {
		m := GLOBL("tailMask", attr.RODATA|attr.NOPTR)
		for i := range 16 {
			ones := U32(0xffffffff)
			if i >= 8 {
				ones = 0
			}
			DATA(4*i, ones)
		}
		tails = &m
	}
	return *tails
}

// HalfMask is the mask of a tail's elements taken two by two: as 64-bit lanes of
// a wide vector, as 32-bit lanes of a narrow one's lower half.
func (s Step) HalfMask() reg.Register {
	half := GP64()
	MOVQ(s.n, half)
	SHRQ(U8(1), half)
	return s.isa.tail(half)
}

// Fetch generates the fetching of memory into the cache.
func Fetch() {
	TEXT("fetch", attr.NOSPLIT, "func(p *byte, n int)")
	Doc("fetch fetches n >= 1 bytes.")
	Pragma("noescape")
	p, n := GP64(), GP64()
	Load(Param("p"), p)
	Load(Param("n"), n)
	lines := NewLabel("lines")
	Label(lines)
	PREFETCHT0(Mem{Base: p})
	ADDQ(Imm(64), p)
	SUBQ(Imm(64), n)
	JG(LabelRef(lines))
	RET()
}
