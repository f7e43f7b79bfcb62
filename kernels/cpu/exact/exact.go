package exact

import (
	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/tensor"
)

// Kernels is the kernels of one level.
type Kernels struct{ level cpu.Level }

// For gives the kernels of a level that this machine and build have. Levels
// without kernels of their own get the generic ones.
func For(l cpu.Level) Kernels { return Kernels{l} }

// Rows is K or V of consecutive tokens of one head, [token][channel].
type Rows struct {
	Data []byte       // of whole tokens
	Type tensor.DType // tensor.F16 or tensor.F32
	// Next is memory that will be read next, V after K, the next page's K after V;
	// as much of it as Data has is fetched into the cache meanwhile. It may be nil.
	Next []byte
}

// stride is the bytes of a row of d channels.
func (r Rows) stride(d int) int {
	if r.Type == tensor.F16 {
		return 2 * d
	}
	return 4 * d
}

// tokens is the number of rows of d channels.
func (r Rows) tokens(d int) int {
	if r.Type != tensor.F16 && r.Type != tensor.F32 {
		panic("BUG: exact rows of type " + r.Type.String())
	}
	if d < 1 || len(r.Data)%r.stride(d) != 0 {
		panic("BUG: exact rows that are no whole tokens")
	}
	return len(r.Data) / r.stride(d)
}

// check panics unless n vectors of d channels and n rows of tokens weights, ld
// apart, lie in x and in w.
func check(w []float32, ld int, x []float32, n, d, tokens int) {
	if n < 0 || ld < tokens || len(x) < n*d || n > 0 && len(w) < (n-1)*ld+tokens {
		panic("BUG: exact attention beyond its slices")
	}
}

// QK sets w[i·ld + t] to the product of query vector i (of n, d channels each, in
// q) and row t, unscaled.
func (k Kernels) QK(w []float32, ld int, q []float32, n, d int, rows Rows) {
	tokens := rows.tokens(d)
	check(w, ld, q, n, d, tokens)
	if tokens == 0 {
		return
	}
	for i := 0; i < n; {
		g := k.group(n - i)
		k.qk(g, w[i*ld:], ld, q[i*d:], d, tokens, rows)
		rows.Next = nil // fetched
		i += g
	}
}

// PV adds Σ_t w[i·ld + t]·row t to vector i (of n, d channels each) of acc.
func (k Kernels) PV(acc []float32, n, d int, w []float32, ld int, rows Rows) {
	tokens := rows.tokens(d)
	check(w, ld, acc, n, d, tokens)
	if tokens == 0 {
		return
	}
	for i := 0; i < n; {
		g := k.group(n - i)
		k.pv(g, acc[i*d:], d, w[i*ld:], ld, tokens, rows)
		rows.Next = nil
		i += g
	}
}

// Widen converts float16 rows to float32 in dst, which must have room for 4 bytes
// a channel: worth it where many query vectors read them. Next is kept.
func (k Kernels) Widen(dst []byte, rows Rows) Rows {
	n := len(rows.Data) / 2
	if rows.Type != tensor.F16 || len(dst) < 4*n {
		panic("BUG: widening other than float16 or beyond the destination")
	}
	dst = dst[:4*n]
	k.widen(dst, rows.Data[:2*n])
	return Rows{Data: dst, Type: tensor.F32, Next: rows.Next}
}

// group is how many of n query vectors go together: they share what is loaded of a
// row.
func (k Kernels) group(n int) int {
	switch {
	case k.level == cpu.Generic:
		return n
	case n == 5 || n == 6:
		return 3 // and 2 or 3: better than 4 and 1, 4 and 2
	}
	return min(n, 4)
}
