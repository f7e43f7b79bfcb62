package main

import "github.com/terse-llm/terse/kernels/cpu/_asm/neon"

const sumArgs = "(sums *int32, p *uint8, plane *byte, width, rows int, add bool, next *byte, from, stride int)"

func sums(file *neon.File, nq int, level string) *neon.Func {
	f := planeFunc(file, "sums", nq, level, sumArgs, "PageSums")
	f.Arg("sums", out)
	f.Arg("p", vectors)
	f.Arg("add", flag)
	return f
}

// overQuads repeats body for every quad of tokens of 16 or 32 channels' words, from
// byte first of the plane on: their words are in V24 (and V25), and body adds the
// quad's products with what weigh loads.
func overQuads(f *neon.Func, first int, halves int, body func()) {
	quad := f.NewLabel("quad")
	f.Go("ADD $%d, %v, %v", first, plane, at)
	f.Go("MOVD %v, %v", vectors, row)
	f.Go("MOVD %v, %v", rows, left)
	f.Label(quad)
	fetch(f)
	for h := range halves {
		f.Load(16, at, 16*h, neon.V(24+h))
	}
	f.Go("ADD %v, %v", width, at)
	body()
	f.Go("ADD $4, %v", row)
	f.Repeat(quad, 4, left)
}

// place stores a sum for every vector, bit pair and half of 32 channels, or adds
// it to what is there.
func place(f *neon.Func, nq, firstPair, pairs, first, halves int, sum func(j, i, h int) neon.V) {
	each := func(do func(v neon.V, at int)) {
		f.Go("MOVD %v, %v", out, at)
		for j := range nq {
			for i := range pairs {
				for h := range halves {
					do(sum(j, i, h), 32*(firstPair+i)+16*(first+h))
				}
			}
			if j+1 < nq {
				f.Go("ADD %v<<2, %v", width, at)
			}
		}
	}
	store := f.NewLabel("store")
	f.Go("CBZ %v, %s", flag, store)
	each(func(v neon.V, off int) {
		f.Load(16, at, off, 24)
		f.ADD(neon.S4, v, v, 24)
	})
	f.Label(store)
	each(func(v neon.V, off int) { f.Store(16, v, at, off) })
}

// overGroups repeats body for every 32 channels.
func overGroups(f *neon.Func, body func()) {
	group := f.NewLabel("group")
	f.Go("MOVD %v, %v", width, count)
	f.Label(group)
	body()
	f.Go("ADD $32, %v", plane)
	f.Go("ADD $128, %v", out)
	f.Repeat(group, 32, count)
	f.Go("RET")
}

// sumsDot takes 32 channels at a time, four vectors' sums of which would not fit
// the registers: 16.
func sumsDot(file *neon.File, nq int) {
	f := sums(file, nq, "DotProd")
	halves := 2
	if nq == 4 {
		halves = 1
	}
	sum := func(j, i, h int) neon.V { return neon.V((4*j+i)*halves + h) }
	overGroups(f, func() {
		for first := 0; first < 2; first += halves {
			for v := range nq * 4 * halves {
				f.Zero(neon.V(v))
			}
			overQuads(f, 16*first, halves, func() {
				for j := range nq {
					f.Load(4, row, rowStride*j, neon.V(26+j))
				}
				for i := range 4 {
					for h := range halves {
						x := neon.V(16 + 2*i + h)
						f.BitPair(i, x, neon.V(24+h), mask)
						for j := range nq {
							f.UDOT(sum(j, i, h), x, neon.V(26+j), 0)
						}
					}
				}
			})
			place(f, nq, 0, 4, first, halves, sum)
		}
	})
}

// sumsNEON has 16-bit sums, which hold a plane (16·255·3 < 2^15): of 16 channels at
// a time, and of four vectors two bit pairs only.
func sumsNEON(file *neon.File, nq int) {
	f := sums(file, nq, "NEON")
	pairs := min(4, 8/nq)
	sum := func(j, i, _ int) neon.V { return neon.V(2 * (pairs*j + i)) }
	overGroups(f, func() {
		for first := range 2 {
			for firstPair := 0; firstPair < 4; firstPair += pairs {
				for v := range nq * pairs * 2 {
					f.Zero(neon.V(v))
				}
				overQuads(f, 16*first, 1, func() {
					for j := range nq {
						f.Spread(row, rowStride*j, neon.V(26+j))
					}
					for i := range pairs {
						x := neon.V(16 + i)
						f.BitPair(firstPair+i, x, 24, mask)
						for j := range nq {
							f.UMLAL(sum(j, i, 0), x, neon.V(26+j), false)
							f.UMLAL(sum(j, i, 0)+1, x, neon.V(26+j), true)
						}
					}
				})
				for j := range nq {
					for i := range pairs {
						v := sum(j, i, 0)
						f.SumQuads(v, v, v+1)
					}
				}
				place(f, nq, firstPair, pairs, first, 1, sum)
			}
		}
	})
}
