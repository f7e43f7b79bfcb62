package rows

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Strided addresses rows that lie a stride apart: up to four of them, or eight.
type Strided struct {
	Base   reg.GPVirtual
	base4  reg.GPVirtual // row 4
	Stride reg.GPVirtual // bytes
	three  reg.GPVirtual // times the stride
}

// NewStrided addresses up to n rows from base on, in registers of its own; stride's
// register is shared.
func NewStrided(base, stride reg.GPVirtual, n int) *Strided {
	s := &Strided{Base: GP64(), Stride: stride}
	if n > 3 {
		s.three = Times3(stride)
	}
	if n > 4 {
		s.base4 = GP64()
	}
	s.Set(base)
	return s
}

// Set moves row 0 to base.
func (s *Strided) Set(base reg.GPVirtual) {
	MOVQ(base, s.Base)
	if s.base4 != nil {
		LEAQ(Mem{Base: base, Index: s.Stride, Scale: 4}, s.base4)
	}
}

// At is byte off of row i.
func (s *Strided) At(i, off int) Mem {
	m := Mem{Base: s.Base, Disp: off}
	if i >= 4 {
		m.Base = s.base4
	}
	switch i % 4 {
	case 1:
		m.Index, m.Scale = s.Stride, 1
	case 2:
		m.Index, m.Scale = s.Stride, 2
	case 3:
		m.Index, m.Scale = s.three, 1
	}
	return m
}

// Advance moves all rows by n bytes.
func (s *Strided) Advance(n int) {
	ADDQ(I32(n), s.Base)
	if s.base4 != nil {
		ADDQ(I32(n), s.base4)
	}
}

// Times3 is 3·r in a new register.
func Times3(r reg.GPVirtual) reg.GPVirtual {
	dst := GP64()
	LEAQ(Mem{Base: r, Index: r, Scale: 2}, dst)
	return dst
}

// Arg loads a pointer or an int.
func Arg(name string) reg.GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}
