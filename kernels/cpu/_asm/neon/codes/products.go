package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

const productArgs = "(dots *int32, q *int8, plane *byte, width, rows int, low bool, next *byte, from, stride int)"

func products(file *neon.File, nq int, level string) *neon.Func {
	f := planeFunc(file, "products", nq, level, productArgs, "PageProducts")
	f.Arg("dots", out)
	f.Arg("q", vectors)
	f.Arg("low", flag)
	return f
}

// queries points row, row+1 … at the vectors.
func queries(f *neon.Func, nq int) {
	f.Go("MOVD %v, %v", vectors, row)
	for j := 1; j < nq; j++ {
		f.Go("ADD %v, %v, %v", width, row+neon.R(j-1), row+neon.R(j))
	}
}

// word loads 16 channels of 8 tokens to V24 and V25, and of the vectors to V26….
func word(f *neon.Func, nq int) {
	fetch(f)
	f.Load(16, plane, 0, 24)
	f.Load(16, plane, 16, 25)
	f.Go("ADD $32, %v", plane)
	for j := range nq {
		f.Load(16, row+neon.R(j), 0, neon.V(26+j))
		f.Go("ADD $16, %v", row+neon.R(j))
	}
}

// productsDot takes 8 tokens at a time, whose words' bit pairs are multiplied with
// four channels each of a vector. Eight sums hide the latency: one vector's bit
// pairs have sums of their own.
func productsDot(file *neon.File, nq int) {
	f := products(file, nq, "DotProd")
	group, words, store := f.NewLabel("group"), f.NewLabel("word"), f.NewLabel("store")
	sets := 4 / nq
	sum := func(set, j, h int) neon.V { return neon.V((set*nq+j)*2 + h) }
	f.Label(group)
	f.Zero(0, 1, 2, 3, 4, 5, 6, 7)
	queries(f, nq)
	f.Go("MOVD %v, %v", width, left)
	f.Label(words)
	word(f, nq)
	for i := range 4 {
		for h := range 2 {
			x := neon.V(16 + 2*i + h)
			f.BitPair(i, x, neon.V(24+h), mask)
			for j := range nq {
				f.SDOT(sum(i%sets, j, h), x, neon.V(26+j), uint32(i))
			}
		}
	}
	f.Repeat(words, 16, left)
	for n := sets / 2; n > 0; n /= 2 {
		for v := range n * nq * 2 {
			f.ADD(neon.S4, neon.V(v), neon.V(v), neon.V(v+n*nq*2))
		}
	}
	each := func(do func(v neon.V, at int)) {
		for j := range nq {
			for h := range 2 {
				do(sum(0, j, h), 4*rowStride*j+16*h)
			}
		}
	}
	f.Go("CBZ %v, %s", flag, store)
	each(func(v neon.V, at int) { fourfold(f, v, at) })
	f.Label(store)
	each(func(v neon.V, at int) { f.Store(16, v, out, at) })
	f.Go("ADD $32, %v", out)
	f.Repeat(group, 8, rows)
	f.Go("RET")
}

// fourfold adds four times what is at the output to v.
func fourfold(f *neon.Func, v neon.V, at int) {
	f.Load(16, out, at, 16)
	f.SHL(neon.S4, 16, 16, 2)
	f.ADD(neon.S4, v, v, 16)
}

// chunk is the number of channels whose products with codes 16 bits hold, two and
// two of them in different sums: 64·128·3 < 2^15.
const chunk = 256

// productsNEON has 16-bit sums of every other pair of channels: of tokens 2k and
// 2k+1 in sum k of a vector.
func productsNEON(file *neon.File, nq int) {
	f := products(file, nq, "NEON")
	group, chunks, whole, words := f.NewLabel("group"), f.NewLabel("chunk"), f.NewLabel("whole"), f.NewLabel("word")
	first, store := f.NewLabel("first"), f.NewLabel("store")
	sum := func(j, k int) neon.V { return neon.V(4*j + k) }
	f.Label(group)
	queries(f, nq)
	f.Go("MOVD %v, %v", width, left)
	f.Label(chunks)
	for j := range nq {
		f.Zero(sum(j, 0), sum(j, 1), sum(j, 2), sum(j, 3))
	}
	f.Go("MOVD $%d, %v", chunk, count)
	f.Go("CMP %v, %v", count, left)
	f.Go("BGE %s", whole)
	f.Go("MOVD %v, %v", left, count)
	f.Label(whole)
	f.Go("SUB %v, %v", count, left)
	f.Label(words)
	word(f, nq)
	for i := range 4 {
		f.BitPair(i, 16, 24, mask)
		f.BitPair(i, 17, 25, mask)
		for j := range nq {
			q := neon.V(18 + j)
			f.DUP(neon.S4, q, neon.V(26+j), uint32(i))
			for k := range 4 {
				f.SMLAL(sum(j, k), neon.V(16+k/2), q, k%2 == 1)
			}
		}
	}
	f.Repeat(words, 16, count)
	each := func(do func(v neon.V, at int)) {
		for j := range nq {
			do(sum(j, 0), 4*rowStride*j)
			do(sum(j, 2), 4*rowStride*j+16)
		}
	}
	each(func(v neon.V, _ int) { f.SumQuads(v, v, v+1) })
	// The first chunk sets the products or adds to four times what is there, the
	// others add.
	f.Go("MOVD %v, %v", row, at)
	f.Go("SUB %v, %v", vectors, at)
	f.Go("CMP $%d, %v", chunk, at)
	f.Go("BLE %s", first)
	each(func(v neon.V, at int) {
		f.Load(16, out, at, 16)
		f.ADD(neon.S4, v, v, 16)
	})
	f.Go("B %s", store)
	f.Label(first)
	f.Go("CBZ %v, %s", flag, store)
	each(func(v neon.V, at int) { fourfold(f, v, at) })
	f.Label(store)
	each(func(v neon.V, at int) { f.Store(16, v, out, at) })
	f.Go("CBNZ %v, %s", left, chunks)
	f.Go("ADD $32, %v", out)
	f.Repeat(group, 8, rows)
	f.Go("RET")
}
