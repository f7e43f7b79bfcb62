package lib

import (
	"fmt"
	"math"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/gotypes"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// ISA is a set of instructions that kernels are generated for. Most mnemonics
// are the same for both widths, so that one description makes both kernels.
type ISA struct {
	Name  string // the suffix of its functions
	Bytes int    // of a vector
}

// The sets.
var (
	AVX2   = ISA{"AVX2", 32}
	AVX512 = ISA{"AVX512", 64}
)

// ISAs are all sets.
var ISAs = []ISA{AVX2, AVX512}

// Lanes is the number of 32-bit elements of a vector.
func (s ISA) Lanes() int { return s.Bytes / 4 }

// Wide is whether vectors are of 512 bits and masks are registers.
func (s ISA) Wide() bool { return s.Bytes == 64 }

// Vec is a new vector register.
func (s ISA) Vec() reg.VecVirtual {
	if s.Wide() {
		return ZMM()
	}
	return YMM()
}

// Half is the lower half of a vector register.
func (s ISA) Half(v reg.Vec) reg.Register {
	if s.Wide() {
		return v.AsY()
	}
	return v.AsX()
}

// Func starts a function of this set.
func (s ISA) Func(name, signature, doc string) {
	TEXT(name+s.Name, attr.NOSPLIT, "func"+signature)
	Doc(fmt.Sprintf("%s%s %s", name, s.Name, doc))
	Pragma("noescape")
}

// Finish ends a function.
func Finish() {
	VZEROUPPER()
	RET()
}

// Address is where a parameter or a result lies. Load and Store would move floats
// by SSE instructions, which are slow between AVX ones.
func Address(c gotypes.Component) Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// Zero makes a new register of zeros.
func (s ISA) Zero() reg.VecVirtual {
	v := s.Vec()
	s.Clear(v)
	return v
}

// Clear sets a register to zeros.
func (s ISA) Clear(v reg.VecVirtual) {
	if s.Wide() {
		VPXORD(v, v, v)
		return
	}
	VXORPS(v, v, v)
}

// Broadcast makes a new register that has a float32 constant in every lane.
func (s ISA) Broadcast(x float32) reg.VecVirtual {
	v := s.Vec()
	VBROADCASTSS(Const(x), v)
	return v
}

// Const is a float32 constant in memory.
func Const(x float32) Mem {
	m, ok := constants[x]
	if !ok {
		m = ConstData(fmt.Sprintf("const%d", len(constants)), F32(x))
		constants[x] = m
	}
	return m
}

var constants = map[float32]Mem{}

// SplitF64 widens the lanes of v to float64: the lower half of them and the
// upper half.
func (s ISA) SplitF64(v reg.VecVirtual) (lo, hi reg.VecVirtual) {
	lo, hi = s.Vec(), s.Vec()
	if s.Wide() {
		VEXTRACTF64X4(U8(1), v, hi.AsY())
	} else {
		VEXTRACTF128(U8(1), v, hi.AsX())
	}
	VCVTPS2PD(s.Half(v), lo)
	VCVTPS2PD(s.Half(hi), hi)
	return lo, hi
}

// SumF64 adds up the lanes of a register of float64 into its lowest lane.
func (s ISA) SumF64(v reg.VecVirtual) {
	t := YMM()
	if s.Wide() {
		VEXTRACTF64X4(U8(1), v, t)
		VADDPD(t, v.AsY(), v.AsY())
	}
	VEXTRACTF128(U8(1), v.AsY(), t.AsX())
	VADDPD(t.AsX(), v.AsX(), v.AsX())
	VPERMILPD(U8(1), v.AsX(), t.AsX())
	VADDSD(t.AsX(), v.AsX(), v.AsX())
}

// MaxF32 makes the lowest lane of v the largest of its lanes.
func (s ISA) MaxF32(v reg.VecVirtual) {
	t := YMM()
	if s.Wide() {
		VEXTRACTF64X4(U8(1), v, t)
		VMAXPS(t, v.AsY(), v.AsY())
	}
	VEXTRACTF128(U8(1), v.AsY(), t.AsX())
	VMAXPS(t.AsX(), v.AsX(), v.AsX())
	VPERMILPS(U8(0x4e), v.AsX(), t.AsX())
	VMAXPS(t.AsX(), v.AsX(), v.AsX())
	VPERMILPS(U8(0xb1), v.AsX(), t.AsX())
	VMAXPS(t.AsX(), v.AsX(), v.AsX())
}

// Words is a constant in memory of a whole vector: the given 32-bit words over
// and over.
func Words(words ...uint32) Mem {
	name := fmt.Sprintf("words%x", words)
	name = strings.NewReplacer("[", "", "]", "", " ", "").Replace(name)
	m, ok := vectors[name]
	if !ok {
		m = GLOBL(name, attr.RODATA|attr.NOPTR)
		for i := range 16 {
			DATA(4*i, U32(words[i%len(words)]))
		}
		vectors[name] = m
	}
	return m
}

// Floats is Words of float32 numbers.
func Floats(x ...float32) Mem {
	words := make([]uint32, len(x))
	for i := range x {
		words[i] = math.Float32bits(x[i])
	}
	return Words(words...)
}

var vectors = map[string]Mem{}

// Load is a new register with what is at m.
func (s ISA) Load(m Op) reg.VecVirtual {
	v := s.Vec()
	VMOVUPS(m, v)
	return v
}

// Comparisons of VCMPPS: ordered, quiet.
const (
	Equal        = 0x00
	Ordered      = 0x07
	NotEqual     = 0x0c
	Less         = 0x11
	GreaterEqual = 0x1d
)

// KeepIf makes v zero in the lanes where not a op b; b may be in memory.
func (s ISA) KeepIf(op uint8, a reg.VecVirtual, b Op, v reg.VecVirtual) {
	if s.Wide() {
		k := K()
		VCMPPS(U8(op), b, a, k)
		VMOVAPS_Z(v, k, v)
		return
	}
	mask := s.Vec()
	VCMPPS(U8(op), b, a, mask)
	VANDPS(mask, v, v)
}
