package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"github.com/terse-llm/terse/kernels/cpu/_asm/lib"
)

// kivi generates attention on pages of kivi with 2 bits.
func kivi() {
	shifts := GLOBL("kiviShifts", RODATA|NOPTR) // at 128·b + 32·i: bits 8b + 2i, where byte b, pair i of a word is
	for j := range 4 * 4 * 8 {
		DATA(4*j, U32(8*(j/32)+2*(j/8%4)))
	}
	for _, s := range lib.ISAs {
		for _, n := range []int{4, 2, 1} {
			kiviQK(s, n)
			kiviPV(s, n, shifts)
		}
	}
	kiviFold()
}

func integer(name string) reg.GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}

// times repeats body n times, n being a register that it uses up.
func times(n reg.Register, body func()) {
	loop := lib.NewLabel("loop")
	Label(loop)
	body()
	DECQ(n)
	JNZ(LabelRef(loop))
}

// kiviQK: lanes are tokens, 16 at a time. Two bits choose one of the codes' numbers.
func kiviQK(s lib.ISA, n int) {
	s.Func(fmt.Sprintf("kiviQK%d", n), "(w *float32, ld int, plane *byte, words int, q, sums *float32, sixteens int)",
		fmt.Sprintf("sets w to the products of %d vectors and sixteens·16 tokens of K, from plane on: words of 16 channels, eight tokens' side by side. q is the vectors, words·16 channels apart, times the channels' scales, and sums their products with the channels' mins.", n))
	w, ld, plane, words, q, sums, left := integer("w"), integer("ld"), integer("plane"), integer("words"), integer("q"), integer("sums"), integer("sixteens")
	SHLQ(U8(2), ld)
	stride := GP64() // from a vector to the next
	MOVQ(words, stride)
	SHLQ(U8(6), stride)
	octet := GP64() // from eight tokens to the next
	MOVQ(words, octet)
	SHLQ(U8(5), octet)
	codes := s.Load(lib.Floats(0, 1, 2, 3))
	runs := 16 / s.Lanes()
	rows := []reg.Register{q} // where the vectors are, as offsets from q of one to three strides
	triple := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, triple)
	times(left, func() {
		acc := make([][]reg.VecVirtual, n)
		for i := range acc {
			first := s.Vec()
			VBROADCASTSS(Mem{Base: sums, Disp: 4 * i}, first)
			acc[i] = []reg.VecVirtual{first}
			for range runs - 1 {
				more := s.Vec()
				VMOVAPS(first, more)
				acc[i] = append(acc[i], more)
			}
		}
		at, x, more := GP64(), GP64(), GP64()
		MOVQ(plane, at)
		MOVQ(rows[0], x)
		MOVQ(words, more)
		times(more, func() {
			word := make([]reg.VecVirtual, runs)
			for r := range word {
				word[r] = s.Vec()
			}
			if s.Wide() {
				VMOVDQU(Mem{Base: at}, word[0].AsY())
				VINSERTI64X4(U8(1), Mem{Base: at, Index: octet, Scale: 1}, word[0], word[0])
			} else {
				VMOVDQU(Mem{Base: at}, word[0])
				VMOVDQU(Mem{Base: at, Index: octet, Scale: 1}, word[1])
			}
			for c := range 16 {
				shift := uint64(8*(c%4) + 2*(c/4))
				key := make([]reg.VecVirtual, runs)
				for r := range key {
					key[r] = word[r]
					if shift > 0 {
						key[r] = s.Vec()
						VPSRLD(Imm(shift), word[r], key[r])
					}
					k := s.Vec()
					VPERMILPS(key[r], codes, k)
					key[r] = k
				}
				for i := range n {
					m := vector(x, stride, triple, i, 4*c)
					if s.Wide() {
						VFMADD231PS_BCST(m, key[0], acc[i][0])
						continue
					}
					y := s.Vec()
					VBROADCASTSS(m, y)
					for r := range key {
						VFMADD231PS(key[r], y, acc[i][r])
					}
				}
			}
			ADDQ(Imm(32), at)
			ADDQ(Imm(64), x)
		})
		to := GP64()
		MOVQ(w, to)
		for i := range acc {
			for r := range acc[i] {
				VMOVUPS(acc[i][r], Mem{Base: to, Disp: r * s.Bytes})
			}
			if i < n-1 {
				ADDQ(ld, to)
			}
		}
		ADDQ(Imm(64), w)
		LEAQ(Mem{Base: plane, Index: octet, Scale: 2}, plane)
	})
	lib.Finish()
}

// vector is disp bytes into vector i of those that lie stride apart.
func vector(base, stride, triple reg.Register, i, disp int) Mem {
	switch i {
	case 1:
		return Mem{Base: base, Index: stride, Scale: 1, Disp: disp}
	case 2:
		return Mem{Base: base, Index: stride, Scale: 2, Disp: disp}
	case 3:
		return Mem{Base: base, Index: triple, Scale: 1, Disp: disp}
	}
	return Mem{Base: base, Disp: disp}
}

// kiviPV: lanes are channels, of a group of 32 all at once (wide) or half of them. Two
// bits choose one of the four values of a token's part.
func kiviPV(s lib.ISA, n int, table Mem) {
	s.Func(fmt.Sprintf("kiviPV%d", n), "(acc *float32, width int, w *float32, ld int, plane *byte, octets int, scale, min *byte, parts, quads, first int)",
		fmt.Sprintf("adds quads·4 tokens, from plane on, weighted by w, to %d channels of %d vectors, width channels apart. A token's eight words lie octets·32 bytes from those of four tokens on, scales and mins parts·2 bytes apart; first is the first of the words' four eights of channels.", 2*s.Lanes(), n))
	acc, width, w, ld, plane, octets := integer("acc"), integer("width"), integer("w"), integer("ld"), integer("plane"), integer("octets")
	scale, least, parts, quads := integer("scale"), integer("min"), integer("parts"), integer("quads")
	shifts, first := GP64(), integer("first")
	LEAQ(table, shifts)
	SHLQ(U8(5), first)
	ADDQ(first, shifts)
	SHLQ(U8(2), ld)
	SHLQ(U8(5), octets)
	SHLQ(U8(1), parts)
	codes := s.Load(lib.Floats(0, 1, 2, 3))
	triple := GP64()
	LEAQ(Mem{Base: ld, Index: ld, Scale: 2}, triple)
	sum := make([][2]reg.VecVirtual, n)
	each := func(do func(i, v int, m Mem)) {
		to := GP64()
		MOVQ(acc, to)
		for i := range sum {
			for v := range 2 {
				do(i, v, Mem{Base: to, Disp: v * s.Bytes})
			}
			if i < n-1 {
				LEAQ(Mem{Base: to, Index: width, Scale: 4}, to)
			}
		}
	}
	each(func(i, v int, m Mem) { sum[i][v] = s.Load(m) })
	times(quads, func() {
		word := s.Vec()
		if s.Wide() {
			VBROADCASTI64X4(Mem{Base: plane}, word)
		} else {
			VMOVDQU(Mem{Base: plane}, word)
		}
		for b := range 4 {
			step, values := kiviHalf(s, scale), kiviHalf(s, least)
			VFMADD231PS(codes, step, values)
			ADDQ(parts, scale)
			ADDQ(parts, least)
			var value [2]reg.VecVirtual
			for v := range value {
				value[v] = s.Vec()
				VPSRLVD(Mem{Base: shifts, Disp: 128*b + v*s.Bytes}, word, value[v])
				VPERMILPS(value[v], values, value[v])
			}
			for i := range n {
				from := vector(w, ld, triple, i, 4*b)
				if s.Wide() {
					VFMADD231PS_BCST(from, value[0], sum[i][0])
					VFMADD231PS_BCST(from, value[1], sum[i][1])
					continue
				}
				y := s.Vec()
				VBROADCASTSS(from, y)
				VFMADD231PS(value[0], y, sum[i][0])
				VFMADD231PS(value[1], y, sum[i][1])
			}
		}
		ADDQ(octets, plane)
		ADDQ(Imm(16), w)
	})
	each(func(i, v int, m Mem) { VMOVUPS(sum[i][v], m) })
	lib.Finish()
}

// kiviHalf is a float16 in every lane.
func kiviHalf(s lib.ISA, p reg.Register) reg.VecVirtual {
	x := s.Vec()
	VPBROADCASTW(Mem{Base: p}, s.Half(x))
	VCVTPH2PS(s.Half(x), x)
	return x
}

// kiviFold is QK's preparation, at 256 bits for both levels.
func kiviFold() {
	s := lib.AVX2
	s.Func("kiviFold", "(dst, sum, q *float32, scale, min *byte, eights int)",
		"sets dst to eights·8 channels of a vector times the channels' scales, and sum to its product with their mins.")
	dst, q, scale, least, left := integer("dst"), integer("q"), integer("scale"), integer("min"), integer("eights")
	sum := s.Zero()
	times(left, func() {
		x, a, m := s.Load(Mem{Base: q}), s.Vec(), s.Vec()
		VCVTPH2PS(Mem{Base: scale}, a)
		VCVTPH2PS(Mem{Base: least}, m)
		VFMADD231PS(x, m, sum)
		VMULPS(x, a, a)
		VMOVUPS(a, Mem{Base: dst})
		for _, p := range []reg.Register{q, dst} {
			ADDQ(Imm(32), p)
		}
		for _, p := range []reg.Register{scale, least} {
			ADDQ(Imm(16), p)
		}
	})
	half := XMM()
	VEXTRACTF128(U8(1), sum, half)
	VADDPS(half, sum.AsX(), half)
	VHADDPS(half, half, half)
	VHADDPS(half, half, half)
	VMOVSS(half, Mem{Base: integer("sum")})
	lib.Finish()
}
