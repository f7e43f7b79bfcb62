package quant

import (
	"math"
	"slices"
)

// Rotation is an orthogonal map of one head's channels: fixed signs, then a
// Hadamard transform of each block. The blocks are the powers of two of which
// head_dim is the sum, largest first (80 = 64 + 16).
type Rotation struct {
	Signs  []float32 // ±1 per channel
	Blocks []int
}

func newRotation(d, half int) *Rotation {
	r := &Rotation{Signs: make([]float32, d)}
	for c := range r.Signs {
		r.Signs[c] = 1 - 2*float32(mix(uint64(half)<<32^uint64(c))&1)
	}
	for bit := 1 << 30; bit > 0; bit >>= 1 {
		if d&bit != 0 {
			r.Blocks = append(r.Blocks, bit)
		}
	}
	return r
}

// Plain is the Rotator in plain Go: the truth that others are held to.
type Plain struct{}

// Rotate does x <- H·(signs ⊙ x) for every head, or back x <- signs ⊙ (H·x), H
// being its own inverse.
func (Plain) Rotate(x []float32, r *Rotation, inverse bool) {
	for head := range slices.Chunk(x, len(r.Signs)) {
		if !inverse {
			r.flip(head)
		}
		r.hadamard(head)
		if inverse {
			r.flip(head)
		}
	}
}

// Add adds y to every run of len(y) elements of x.
func (Plain) Add(x, y []float32) {
	for row := range slices.Chunk(x, len(y)) {
		for i, v := range y {
			row[i] += v
		}
	}
}

// Map multiplies every head of x with the matrix of its KV head.
func (Plain) Map(x []float32, heads, d int, m []float32) {
	group := heads / (len(m) / (d * d))
	y := make([]float32, d)
	for i := 0; i < len(x); i += d {
		head := x[i : i+d]
		clear(y)
		for in, v := range head {
			at := (i/d%heads/group*d + in) * d
			for out, w := range m[at : at+d] {
				y[out] += float32(v * w)
			}
		}
		copy(head, y)
	}
}

func (r *Rotation) flip(head []float32) {
	for c, s := range r.Signs {
		head[c] *= s
	}
}

func (r *Rotation) hadamard(x []float32) {
	at := 0
	for _, n := range r.Blocks {
		walshHadamard(x[at : at+n])
		at += n
	}
}

// walshHadamard multiplies x (a power of two long) by the orthonormal Hadamard
// matrix in natural order.
func walshHadamard(x []float32) {
	for h := 1; h < len(x); h *= 2 {
		for i := 0; i < len(x); i += 2 * h {
			lo, hi := x[i:i+h], x[i+h:i+2*h]
			for j := range lo {
				a, b := lo[j], hi[j]
				lo[j], hi[j] = a+b, a-b
			}
		}
	}
	norm := float32(1 / math.Sqrt(float64(len(x))))
	for i := range x {
		x[i] *= norm
	}
}
