//go:build (amd64 || arm64) && !purego

package exact

// addQK adds the products of channels [from, d) to the scores of n vectors: the
// last channels of kernels that take whole vectors only.
func addQK(n int, w []float32, ld int, q []float32, d, from, tokens int, rows Rows) {
	for t := range tokens {
		for c := from; c < d; c++ {
			x := rows.at(t*d + c)
			for i := range n {
				w[i*ld+t] += q[i*d+c] * x
			}
		}
	}
}

// addPV adds the weighted rows to channels [from, d) of n vectors, like addQK.
func addPV(n int, acc []float32, d, from int, w []float32, ld, tokens int, rows Rows) {
	for t := range tokens {
		for c := from; c < d; c++ {
			x := rows.at(t*d + c)
			for i := range n {
				acc[i*d+c] += w[i*ld+t] * x
			}
		}
	}
}
