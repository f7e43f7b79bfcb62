package fused

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
)

// Kernels is the kernels of one level.
type Kernels struct{ level cpu.Level }

// For gives the kernels of a level that this machine and build have. Levels
// without kernels of their own get the generic ones.
func For(l cpu.Level) Kernels { return Kernels{l} }

// batch is the most query vectors that share what is loaded of a page.
const batch = 4

// Queries is query vectors made ready for QK, once for all pages.
type Queries struct {
	n    int
	q    []float32 // [vector][Width], with 4 bits divided by what the codes come with
	sums []float32 // of a group's channels, [batch of vectors][group][4]
}

// Prepare makes n vectors of HeadDim channels ready.
func (p *Queries) Prepare(l *Layout, q []float32, n int) {
	p.n = n
	p.q = grow(p.q, n*l.Width)
	p.sums = grow(p.sums, (n+batch)*l.Groups*batch)
	clear(p.q)
	clear(p.sums)
	at := 0
	for i := 0; i < n; i += batchOf(n - i) {
		for j := range batchOf(n - i) {
			x := q[(i+j)*l.HeadDim : (i+j+1)*l.HeadDim]
			for c, v := range x {
				p.sums[at+c/groupWidth*batch+j] += v
				if l.Halves[quant.HalfK].Bits == 4 {
					v *= shrink(c % 8 / 2)
				}
				p.q[(i+j)*l.Width+c] = v
			}
		}
		at += l.Groups * batch
	}
}

// shrink is 256^-m: nibble 2m of a word, in its place, is 256^m times the code.
func shrink(m int) float32 { return 1 / float32(int64(1)<<(8*m)) }

// batchOf is how many of n vectors go together.
func batchOf(n int) int {
	switch {
	case n >= 4:
		return 4
	case n >= 2:
		return 2
	}
	return 1
}

// QK sets w[i·ld + t] to the product of prepared vector i and token t of a page's K,
// unscaled. next, which may be nil, is fetched meanwhile: the rest of the page, if it
// is not in cache.
func (k Kernels) QK(w []float32, ld int, p *Queries, l *Layout, page, next []byte) {
	if p.n == 0 {
		return
	}
	if len(page) < l.Bytes || ld < pageTokens || len(w) < (p.n-1)*ld+pageTokens || len(p.q) != p.n*l.Width {
		panic("BUG: fused attention beyond its slices")
	}
	at := 0
	for i := 0; i < p.n; {
		n := batchOf(p.n - i)
		k.qk(n, w[i*ld:], ld, l, page, p.q[i*l.Width:], p.sums[at:], next)
		next = nil // fetched
		at += l.Groups * batch
		i += n
	}
}

// PV adds Σ_t w[i·ld + t]·V_t to vector i (of n, Width channels each) of acc. All 64
// tokens count: those not seen must weigh 0.
func (k Kernels) PV(acc []float32, n int, w []float32, ld int, l *Layout, page, next []byte) {
	if n == 0 {
		return
	}
	if n < 0 || len(page) < l.Bytes || ld < pageTokens || len(w) < (n-1)*ld+pageTokens || len(acc) < n*l.Width {
		panic("BUG: fused attention beyond its slices")
	}
	for i := 0; i < n; {
		m := batchOf(n - i)
		k.pv(m, acc[i*l.Width:], w[i*ld:], ld, l, page, next)
		next = nil
		i += m
	}
}

func grow(b []float32, n int) []float32 {
	if cap(b) < n {
		return make([]float32, n)
	}
	return b[:n]
}
