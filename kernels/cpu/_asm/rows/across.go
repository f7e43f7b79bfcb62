package rows

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Across folds the first eight floats of x into the first; t is an XMM register to
// spare.
func Across(x reg.Vec, t reg.Register, fold func(...Op)) {
	VEXTRACTF128(Imm(1), x.AsY(), t)
	fold(t, x.AsX(), x.AsX())
	VPERMILPS(Imm(0x4e), x.AsX(), t)
	fold(t, x.AsX(), x.AsX())
	VPERMILPS(Imm(0xb1), x.AsX(), t)
	fold(t, x.AsX(), x.AsX())
}
