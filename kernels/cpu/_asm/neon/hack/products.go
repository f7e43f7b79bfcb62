package main

import (
	"fmt"

	"github.com/terse-llm/terse/kernels/cpu/_asm/neon"
)

// Registers of qk and pv.
const (
	out, ld, plane, stride = neon.R(0), neon.R(1), neon.R(2), neon.R(3)
	left, at, to           = neon.R(4), neon.R(5), neon.R(6)
	vectors, pitch         = neon.R(8), neon.R(9)
	groups, length         = neon.R(10), neon.R(11)
	row                    = neon.R(12) // and after it: one for every vector
)

// What a code is masked with, and how far the products are shifted.
const mask, shift = neon.V(31), neon.V(30)

// start loads the arguments, whose names differ.
func start(file *neon.File, name string, nq int, dot bool, args [4]string) *neon.Func {
	level := map[bool]string{false: "NEON", true: "DotProd"}[dot]
	f := file.Func(fmt.Sprintf("%s%d%s", name, nq, level),
		fmt.Sprintf("(%s *int32, ld int, plane *byte, stride int, %s *byte, %s, %s, groups, shift int)", args[0], args[1], args[2], args[3]),
		fmt.Sprintf("is %s for %d vectors.", name, nq))
	f.Arg(args[0], out)
	f.Arg("ld", ld)
	f.Go("LSL $2, %v", ld)
	f.Arg("plane", plane)
	f.Arg("stride", stride)
	f.Arg(args[1], vectors)
	f.Arg(args[2], pitch)
	f.Arg(args[3], length)
	f.Arg("groups", groups)
	f.Arg("shift", at)
	f.Go("VDUP %v, V%d.S4", at, shift)
	f.Go("VMOVI $3, V%d.B16", mask)
	return f
}

// rows points row, row+1 … at the vectors.
func rows(f *neon.Func, nq int) {
	f.Go("MOVD %v, %v", vectors, row)
	for i := 1; i < nq; i++ {
		f.Go("ADD %v, %v, %v", pitch, row+neon.R(i-1), row+neon.R(i))
	}
}

// add adds v, shifted, to what is at an address, by way of temp.
func add(f *neon.Func, v, temp neon.V, base neon.R, off int) {
	f.USHL(neon.S4, v, v, shift)
	f.Load(16, base, off, temp)
	f.ADD(neon.S4, v, v, temp)
	f.Store(16, v, base, off)
}

// qk takes eight tokens at a time. With dot products their sums are in two
// registers a vector, else in four of 16-bit lanes, which hold 64 channels
// (16·255·3 < 2^15).
func qk(file *neon.File, nq int, dot bool) {
	f := start(file, "qk", nq, dot, [4]string{"dots", "q", "width", "words"})
	registers := map[bool]int{false: 4, true: 2}[dot]
	sum := func(i, k int) neon.V { return neon.V(registers*i + k) }
	group, words := f.NewLabel("group"), f.NewLabel("word")
	f.Label(group)
	for v := range nq * registers {
		f.Zero(neon.V(v))
	}
	rows(f, nq)
	f.Go("MOVD %v, %v", plane, at)
	f.Go("MOVD %v, %v", length, left)
	f.Label(words)
	f.Load(16, at, 0, 24)
	f.Load(16, at, 16, 25)
	f.Go("ADD $32, %v", at)
	for i := range nq {
		f.Load(16, row+neon.R(i), 0, neon.V(26+i))
		f.Go("ADD $16, %v", row+neon.R(i))
	}
	for pair := range 4 {
		for h := range 2 {
			f.BitPair(pair, neon.V(16+h), neon.V(24+h), mask)
		}
		for i := range nq {
			q := neon.V(26 + i)
			if dot {
				f.UDOT(sum(i, 0), 16, q, uint32(pair))
				f.UDOT(sum(i, 1), 17, q, uint32(pair))
				continue
			}
			f.DUP(neon.S4, neon.V(18+i), q, uint32(pair))
			for k := range 4 {
				f.UMLAL(sum(i, k), neon.V(16+k/2), neon.V(18+i), k%2 == 1)
			}
		}
	}
	f.Repeat(words, 1, left)
	f.Go("MOVD %v, %v", out, to)
	for i := range nq {
		if i > 0 {
			f.Go("ADD %v, %v", ld, to)
		}
		for h := range 2 {
			v := sum(i, h)
			if !dot {
				v = sum(i, 2*h)
				f.SumQuads(v, v, v+1)
			}
			add(f, v, 16, to, 16*h)
		}
	}
	f.Go("ADD $32, %v", out)
	f.Go("ADD %v, %v", stride, plane)
	f.Repeat(group, 1, groups)
	f.Go("RET")
}

// pv takes 16 channels at a time, half of a group: words of 16 bytes. 16-bit sums,
// two registers of them, hold 64 tokens; of four vectors they fit the registers
// for two bit pairs only.
func pv(file *neon.File, nq int, dot bool) {
	f := start(file, "pv", nq, dot, [4]string{"out", "p", "ldp", "quads"})
	registers, pairs := 1, 4
	if !dot {
		registers, pairs = 2, min(4, 8/nq)
	}
	sum := func(i, pair int) neon.V { return neon.V(registers * (pairs*i + pair)) }
	group := f.NewLabel("group")
	f.Label(group)
	for half := range 2 {
		for first := 0; first < 4; first += pairs {
			for v := range nq * pairs * registers {
				f.Zero(neon.V(v))
			}
			rows(f, nq)
			f.Go("ADD $%d, %v, %v", 16*half, plane, at)
			f.Go("MOVD %v, %v", length, left)
			quad := f.NewLabel("quad")
			f.Label(quad)
			f.Load(16, at, 0, 24)
			f.Go("ADD %v, %v", stride, at)
			for i := range nq {
				f.Spread(row+neon.R(i), 0, neon.V(26+i))
				f.Go("ADD $4, %v", row+neon.R(i))
			}
			for pair := range pairs {
				x := neon.V(16 + pair)
				f.BitPair(first+pair, x, 24, mask)
				for i := range nq {
					if dot {
						f.UDOT(sum(i, pair), x, neon.V(26+i), 0)
						continue
					}
					f.UMLAL(sum(i, pair), x, neon.V(26+i), false)
					f.UMLAL(sum(i, pair)+1, x, neon.V(26+i), true)
				}
			}
			f.Repeat(quad, 1, left)
			f.Go("MOVD %v, %v", out, to)
			for i := range nq {
				if i > 0 {
					f.Go("ADD %v, %v", ld, to)
				}
				for pair := range pairs {
					v := sum(i, pair)
					if !dot {
						f.SumQuads(v, v, v+1)
					}
					add(f, v, 24, to, 32*(first+pair)+16*half)
				}
			}
		}
	}
	f.Go("ADD $32, %v", plane)
	f.Go("ADD $128, %v", out)
	f.Repeat(group, 1, groups)
	f.Go("RET")
}
