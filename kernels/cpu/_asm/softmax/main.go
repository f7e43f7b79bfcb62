// Command softmax generates the assembly of package kernels/cpu/softmax.
package main

import (
	. "github.com/mmcloughlin/avo/build"
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
	ConstraintExpr("!purego")
	for _, v := range []vec{{}, {wide: true}} {
		scores(v)
		findMax(v)
		weigh(v, "weigh", false, false)
		weigh(v, "weighBy", true, false)
		weigh(v, "weighByCentred", true, true)
		quantise(v)
	}
	Generate()
}
