package main

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

// vUpper selects the upper half of a dword.
const vUpper = neon.V(31)

// floatTile multiplies m rows by a panel of plain weights: one chain of fused
// multiply-adds per output, in the order of k, whatever m is.
func floatTile(out *neon.File, dtype string, m int) {
	v := 8
	if m > 3 {
		v = 4
	}
	t := start(out, fmt.Sprintf("tile%sx%dNEON", dtype, m), m, v, "n steps of k of "+dtype+" weights")
	if dtype == "BF16" {
		t.Words(0xffff0000, vUpper)
	}
	// As many steps at a time as fill registers with activations.
	runs := []int{4, 2, 1} // of BF16 a single step can only be the last
	if m%2 == 0 {
		runs = runs[1:]
	}
	base := rHalfs
	if dtype != "F16" {
		base = rCodes
	}
	for _, run := range runs {
		loop, next := fmt.Sprintf("steps%d", run), fmt.Sprintf("fewer%d", run)
		t.Label(loop)
		t.Go("CMP $%d, %v", run, rLeft)
		t.Go("BLT %s", next)
		t.floatSteps(dtype, base, run)
		t.Go("ADD $%d, %v", weightBytes(dtype, run), base)
		t.Go("ADD $%d, %v", run*4*m, rAct)
		t.Go("SUB $%d, %v", run, rLeft)
		t.Go("B %s", loop)
		t.Label(next)
	}
	t.finish()
}

// weightBytes is the size of n steps of k of a panel.
func weightBytes(dtype string, n int) int {
	if dtype == "F32" {
		return n * panel * 4
	}
	return n * panel * 2
}

// place is a lane of a register.
type place struct {
	v    neon.V
	lane uint32
}

// floatSteps is n steps of k.
func (t tile) floatSteps(dtype string, base neon.R, n int) {
	var x []place // of the activations, [n][m]
	next := neon.V(t.m * t.v)
	for len(x) < n*t.m {
		lanes := 4
		for lanes > n*t.m-len(x) {
			lanes /= 2
		}
		t.Load(4*lanes, rAct, 4*len(x), next)
		for l := range lanes {
			x = append(x, place{next, uint32(l)})
		}
		next++
	}
	free := &ring{first: next, n: vUpper - next}
	for k := range n {
		use := func(v int, w neon.V) {
			for r := range t.m {
				p := x[k*t.m+r]
				t.FMLALane(t.sum(r, v), w, p.v, p.lane)
			}
		}
		for v := range t.v {
			w := free.take()
			switch dtype {
			case "F32":
				t.Load(16, base, k*panel*4+16*v, w)
			case "BF16": // dwords of an even step and the odd one after it
				t.Load(16, base, k/2*panel*4+16*v, w)
				if k%2 == 0 {
					t.SHL(neon.S4, w, w, 16)
				} else {
					t.AND(w, w, vUpper)
				}
			case "F16": // two vectors at a time
				if v%2 == 1 {
					continue
				}
				t.Load(16, base, k*panel*2+8*v, w)
				upper := free.take()
				t.FCVTL(neon.S4, upper, w, true)
				t.FCVTL(neon.S4, w, w, false)
				use(v, w)
				use(v+1, upper)
				continue
			}
			use(v, w)
		}
	}
}
