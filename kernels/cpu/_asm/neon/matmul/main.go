// Command matmul generates the micro-kernels of package kernels/cpu/matmul for
// arm64: tiles of some activation rows by the 32 outputs of a panel. The package's
// documentation has the layouts.
package main

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

const (
	// panel is the number of outputs of a panel.
	panel = 32
	// floatRows is how many rows the largest tile of plain weights has, so that its
	// sums fit into the registers.
	floatRows = 6
)

func main() {
	f := neon.Start()
	for _, d := range []string{"F32", "BF16", "F16"} {
		for m := 1; m <= floatRows; m++ {
			floatTile(f, d, m)
		}
	}
	for _, l := range []level{{"NEON", false, 4}, {"DotProd", true, 6}} {
		for _, k := range kinds {
			for m := 1; m <= l.rows; m++ {
				intTile(f, l, k, m)
			}
		}
	}
	interleave(f)
	encode(f)
	f.Write()
}

// Registers of all tiles. The arguments, of which some move:
const (
	rY, rLd, rX, rW, rN = neon.R(0), neon.R(1), neon.R(2), neon.R(3), neon.R(4)
	// The part's first output; its weights by 4, 2 and 1 bytes an output.
	rPart                  = neon.R(5)
	rCodes, rHalfs, rBytes = neon.R(6), neon.R(7), neon.R(8)
	rLeft, rBlocks, rRow   = neon.R(9), neon.R(10), neon.R(11)
	rAct, rLoad            = neon.R(12), neon.R(13)
)

// tile is what all tiles start with: m rows of sums in v registers each, as V0
// and so on.
type tile struct {
	*neon.Func
	m, v int
}

// start declares a tile. Where a panel's 32 outputs by m rows do not fit into the
// registers, the tile works in parts of fewer outputs.
func start(out *neon.File, name string, m, v int, doc string) tile {
	t := tile{out.Func(name, "(y *float32, ldy int, x *byte, w *byte, n int, load bool)",
		fmt.Sprintf("computes %d×%d outputs from %s.", m, panel, doc)), m, v}
	t.Arg("y", rY)
	t.Arg("ldy", rLd)
	t.Arg("x", rX)
	t.Arg("w", rW)
	t.Arg("n", rN)
	t.Arg("load", rLoad)
	t.Go("LSL $2, %v", rLd)
	t.Go("MOVD $0, %v", rPart)
	t.Label("part")
	t.Go("ADD %v<<2, %v, %v", rPart, rW, rCodes)
	t.Go("ADD %v<<1, %v, %v", rPart, rW, rHalfs)
	t.Go("ADD %v, %v, %v", rPart, rW, rBytes)
	t.Go("MOVD %v, %v", rX, rAct)
	t.Go("MOVD %v, %v", rN, rLeft)
	for i := range m * v {
		t.Zero(neon.V(i))
	}
	t.Go("CBZ %v, zeroed", rLoad)
	t.eachSum(func(v neon.V, at int) { t.Load(16, rRow, at, v) })
	t.Label("zeroed")
	return t
}

// sum is the register of row r, vector v of the sums.
func (t tile) sum(r, v int) neon.V { return neon.V(r*t.v + v) }

func (t tile) eachSum(f func(v neon.V, at int)) {
	t.Go("MOVD %v, %v", rY, rRow)
	for r := range t.m {
		for v := range t.v {
			f(t.sum(r, v), 16*v)
		}
		if r+1 < t.m {
			t.Go("ADD %v, %v", rLd, rRow)
		}
	}
}

// finish stores the sums, and goes back for the next part.
func (t tile) finish() {
	t.eachSum(func(v neon.V, at int) { t.Store(16, v, rRow, at) })
	t.Go("ADD $%d, %v", 16*t.v, rY)
	t.Go("ADD $%d, %v", 4*t.v, rPart)
	t.Go("CMP $%d, %v", panel, rPart)
	t.Go("BNE part")
	t.Go("RET")
}

// ring gives registers in turn.
type ring struct{ first, n, next neon.V }

func (r *ring) take() neon.V {
	v := r.first + r.next%r.n
	r.next++
	return v
}
