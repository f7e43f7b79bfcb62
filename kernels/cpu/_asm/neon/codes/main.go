// Command codes generates kernels/cpu/codes' assembly for arm64.
package main

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

// rowStride is the distance of two vectors' rows of products, in elements, and of
// weights: Tokens of the package.
const rowStride = 256

func main() {
	f := neon.Start()
	for _, nq := range []int{1, 2, 4} {
		productsDot(f, nq)
		productsNEON(f, nq)
		sumsDot(f, nq)
		sumsNEON(f, nq)
	}
	merge(f)
	maxAbs(f)
	quantise(f)
	widen(f)
	f.Write()
}

// Registers of the kernels that read planes.
const (
	out, vectors, plane = neon.R(0), neon.R(1), neon.R(2)
	width, rows, flag   = neon.R(3), neon.R(4), neon.R(5)
	ahead, stride       = neon.R(6), neon.R(7)
	left, at, count     = neon.R(8), neon.R(9), neon.R(10)
	row                 = neon.R(11) // and after it: one for every vector
)

const mask = neon.V(31) // of a byte's lowest bit pair

// planeFunc starts a kernel for one plane, which fetches as it goes along what
// lies at from of next, stride bytes further for each step of its inner loop.
func planeFunc(file *neon.File, name string, nq int, level, signature, what string) *neon.Func {
	name = fmt.Sprintf("%s%d%s", name, nq, level)
	f := file.Func(name, signature, fmt.Sprintf("is Kernels.%s of %d vectors for one plane.", what, nq))
	f.Arg("plane", plane)
	f.Arg("width", width)
	f.Arg("rows", rows)
	f.Arg("next", ahead)
	f.Arg("from", stride)
	f.Go("ADD %v, %v", stride, ahead)
	f.Arg("stride", stride)
	f.Go("VMOVI $3, V%d.B16", mask)
	return f
}

// fetch asks for the next line ahead.
func fetch(f *neon.Func) {
	f.Go("PRFM (%v), PLDL2KEEP", ahead)
	f.Go("ADD %v, %v", stride, ahead)
}
