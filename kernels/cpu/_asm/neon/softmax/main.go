// Command softmax generates kernels/cpu/softmax's assembly for arm64.
package main

import (
	"math"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

// The layout of the package's Tile, in bytes; a test compares.
const (
	rowBytes   = 4 * 256
	codeBytes  = 256
	offP       = 4 * rowBytes
	offEnd     = offP + 4*codeBytes
	offFactor  = offEnd + 32
	offQSum    = offFactor + 16
	offTop     = offQSum + 16
	offMax     = offTop + 16
	offSum     = offMax + 16
	offLargest = offSum + 16
	offCentre  = offLargest + 16
	offPSum    = offCentre + 16
)

func main() {
	f := neon.Start()
	scores(f)
	findMax(f)
	weigh(f, "weighNEON", false, false)
	weigh(f, "weighByNEON", true, false)
	weigh(f, "weighByCentredNEON", true, true)
	quantise(f)
	f.Write()
}

// Registers of all kernels.
const (
	// Of the vector: scores, codes, 4-byte and 8-byte fields; how many are left.
	rS, rP, rFields, rEnds, rLeft = neon.R(0), neon.R(1), neon.R(2), neon.R(3), neon.R(4)
	rDots, rStep, rBias, rAdd     = neon.R(5), neon.R(6), neon.R(7), neon.R(8)
	rCentre, rN                   = neon.R(7), neon.R(8)
	// Of the block: scores, tokens seen from there on, and the operands.
	atS, rSeen                     = neon.R(9), neon.R(10)
	atDots, atStep, atBias, atCode = neon.R(11), neon.R(12), neon.R(13), neon.R(14)
	atCentre, rSum                 = atBias, neon.R(15)

	vIota, vFour, vMask, vRest = neon.V(28), neon.V(29), neon.V(30), neon.V(31)
)

var negInf = float32(math.Inf(-1))

type kernel struct{ *neon.Func }

func start(out *neon.File, name, args, doc string) kernel {
	k := kernel{out.Func(name, "("+args+")", "is "+doc+".")}
	k.Arg("t", rS)
	k.Arg("nq", rLeft)
	k.Go("ADD $%d, %v, %v", offP, rS, rP)
	k.Go("MOVD %v, %v", rS, rFields)
	k.Go("MOVD %v, %v", rS, rEnds)
	return k
}

// each runs body for every vector, and returns.
func (k kernel) each(body func()) {
	k.Go("VMOVQ $0x0000000100000000, $0x0000000300000002, V%d", vIota)
	k.Words(4, vFour)
	k.Label("vector")
	body()
	k.Go("ADD $%d, %v", rowBytes, rS)
	k.Go("ADD $%d, %v", codeBytes, rP)
	k.Go("ADD $4, %v", rFields)
	k.Go("ADD $8, %v", rEnds)
	k.Go("SUBS $1, %v", rLeft)
	k.Go("BNE vector")
	k.Go("RET")
}

// blocks runs body over the blocks of 16 tokens that the vector sees, the last one
// masked if it is not whole: body calls mask before each of its four parts. The
// registers of operands move on with the blocks, and stay at their end.
func (k kernel) blocks(name string, operands []neon.R, body func(masked bool)) {
	advance := func() {
		for _, r := range operands {
			k.Go("ADD $64, %v", r)
		}
	}
	k.Go("MOVD %d(%v), %v", offEnd, rEnds, rSeen)
	k.Label(name + "Block")
	k.Go("CMP $16, %v", rSeen)
	k.Go("BLT %sRest", name)
	body(false)
	advance()
	k.Go("SUB $16, %v", rSeen)
	k.Go("B %sBlock", name)
	k.Label(name + "Rest")
	k.Go("CBZ %v, %sDone", rSeen, name)
	k.Go("VDUP %v, V%d.S4", rSeen, vRest)
	body(true)
	advance()
	k.Label(name + "Done")
}

// mask sets vMask for the next part of a last block.
func (k kernel) mask() {
	k.CMGT(neon.S4, vMask, vRest, vIota)
	k.SUB(neon.S4, vRest, vRest, vFour)
}

// maxNumber makes acc the larger of x and acc, acc where x is NaN, by way of t.
func (k kernel) maxNumber(x, acc, t neon.V) {
	k.FCMGT(neon.S4, t, x, acc)
	k.BIT(acc, x, t)
}

// fold folds four registers into the lowest lane of the first, in halves, and
// stores it in a field of the vector.
func (k kernel) fold(r neon.V, op func(a neon.Arr, d, n, m neon.V), field int) {
	op(neon.S4, r, r, r+2)
	op(neon.S4, r+1, r+1, r+3)
	op(neon.S4, r, r, r+1)
	k.EXT(r+1, r, r, 8)
	op(neon.S4, r, r, r+1)
	k.DUP(neon.S4, r+1, r, 1)
	op(neon.S4, r, r, r+1)
	k.Store(4, r, rFields, field)
}
