package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/rows"
)

// qk generates the scores of nq query vectors with a page of K. Lanes are tokens:
// a group's dots are chains over its channels, the scale (and zero) come after
// each group, and nothing is summed across lanes.
func (g *gen) qk() {
	vecs := 4 // of tokens at a time: 4-16 chains of multiply-adds
	if g.nq == 4 && !g.Wide {
		vecs = 2
	}
	at := vecs * g.Lanes() // tokens at a time
	name := g.name("qk")
	rows.Begin(name, name+" is qk for that many query vectors.",
		"func(w *float32, ld int, codes *byte, width int, scales *byte, q, sums *float32, next *byte)")
	w, ld, codes, width := rows.Arg("w"), rows.Arg("ld"), rows.Arg("codes"), rows.Arg("width")
	SHLQ(Imm(2), ld)
	scales, next := rows.Arg("scales"), rows.Arg("next")
	run := GP64() // bytes of 16 tokens
	MOVQ(width, run)
	SHLQ(Imm(uint64(g.bits/4+2)), run)
	SHLQ(Imm(2), width) // bytes of a query
	q := rows.NewStrided(rows.Arg("q"), width, g.nq)
	k := rows.NewStrided(codes, run, at/16)
	out := rows.NewStrided(w, ld, g.nq)
	left, sums, channels := GP64(), GP64(), GP64()
	Label("block")
	zero := g.Low(0)
	g.Zero(zero)
	for i := range g.nq {
		for v := range vecs {
			rows.StoreF32(zero, nil, out.At(i, 4*v*g.Lanes()))
		}
	}
	Load(Param("sums"), sums)
	MOVQ(width, left)
	SHRQ(Imm(8), left) // groups
	Label("groups")
	for i := range g.nq * vecs {
		g.Zero(g.High(i))
	}
	MOVQ(U64(group/8), channels)
	Label("channels")
	bytes := at * g.bits // of these channels
	for off := 0; off < bytes; off += 64 {
		PREFETCHT0(Mem{Base: next, Disp: off})
	}
	ADDQ(I32(bytes), next)
	if g.bits == 8 {
		g.eight8(q, k, vecs)
	} else {
		g.eight4(q, k, vecs)
	}
	q.Advance(32)
	DECQ(channels)
	JNZ(LabelRef("channels"))
	g.scale(out, scales, sums, width, vecs)
	ADDQ(I32(2*tokens), scales)
	ADDQ(Imm(16), sums) // of up to four vectors
	DECQ(left)
	JNZ(LabelRef("groups"))
	if at < tokens {
		LEAQ(Mem{Base: codes, Index: run, Scale: uint8(at / 16)}, codes)
		k.Set(codes)
		out.Advance(4 * at)
		SUBQ(width, q.Base)
		MOVQ(width, left)
		SHRQ(Imm(1), left) // bytes of all groups' scales
		SUBQ(left, scales)
		ADDQ(Imm(uint64(2*at)), scales)
		Load(Param("scales"), left)
		ADDQ(I32(2*tokens), left)
		CMPQ(scales, left)
		JL(LabelRef("block"))
	}
	rows.End()
}

// place is where vector v's first token is: which run of 16 and where in it.
func (g *gen) place(v int) (run, at int) { return v * g.Lanes() / 16, v * g.Lanes() % 16 }

// eight8 does eight channels of 8 bits.
func (g *gen) eight8(q, k *rows.Strided, vecs int) {
	for c := range 8 {
		for v := range vecs {
			run, at := g.place(v)
			VPMOVSXBD(k.At(run, 16*c+at), g.Low(v))
			VCVTDQ2PS(g.Low(v), g.Low(v))
		}
		g.multiply(q, 4*c, vecs, vecs)
	}
	k.Advance(128)
}

// eight4 does eight channels of 4 bits, the even ones first.
func (g *gen) eight4(q, k *rows.Strided, vecs int) {
	word := func(v int) reg.VecPhysical { return g.Low(vecs + v) }
	for v := range vecs {
		run, at := g.place(v)
		rows.LoadF32(k.At(run, 4*at), nil, word(v))
	}
	narrow := !g.Wide && g.nq == 2 // one code at a time: registers
	for odd := range 2 {
		for m := range 4 {
			c := 4 * (2*m + odd)
			if narrow {
				for i := range g.nq {
					VBROADCASTSS(q.At(i, c), g.Low(1+i))
				}
			}
			for v := range vecs {
				code := g.Low(v)
				if narrow {
					code = g.Low(0)
				}
				g.and(word(v), m, code)
				VCVTDQ2PS(code, code)
				if narrow {
					for i := range g.nq {
						VFMADD231PS(g.Low(1+i), code, g.High(i*vecs+v))
					}
				}
			}
			if !narrow {
				g.multiply(q, c, vecs, 2*vecs)
			}
		}
		if odd == 0 {
			for v := range vecs {
				VPSRLD(Imm(4), word(v), word(v))
			}
		}
	}
	k.Advance(64)
}

// multiply adds the products of one channel, its codes in the lowest registers;
// free is the first register that may be used.
func (g *gen) multiply(q *rows.Strided, off, vecs, free int) {
	for i := range g.nq {
		r := g.Low(free + i%2)
		VBROADCASTSS(q.At(i, off), r)
		for v := range vecs {
			VFMADD231PS(r, g.Low(v), g.High(i*vecs+v))
		}
	}
}

// scale adds a group's dots, scaled, to the scores.
func (g *gen) scale(out *rows.Strided, scales, sums, width reg.GPVirtual, vecs int) {
	zeros := GP64() // they lie after all groups' scales
	if g.bits == 4 {
		MOVQ(width, zeros)
		SHRQ(Imm(1), zeros)
		ADDQ(scales, zeros)
	}
	for v := range vecs {
		t := v * g.Lanes()
		VCVTPH2PS(Mem{Base: scales, Disp: 2 * t}, g.Low(0))
		if g.bits == 4 {
			VCVTPH2PS(Mem{Base: zeros, Disp: 2 * t}, g.Low(1))
		}
		for i := range g.nq {
			a := g.High(i*vecs + v)
			VFMADD213PS(out.At(i, 4*t), g.Low(0), a)
			if g.bits == 4 {
				VBROADCASTSS(Mem{Base: sums, Disp: 4 * i}, g.Low(2))
				VFMADD231PS(g.Low(2), g.Low(1), a)
			}
			rows.StoreF32(a, nil, out.At(i, 4*t))
		}
	}
}
