package quant

import (
	"fmt"
	"math"
	"slices"
)

// Transform takes K, V and queries into the cache's basis and outputs back. It
// is immutable and safe for concurrent use. For formats that neither rotate nor
// subtract means it does nothing.
type Transform struct {
	g            *Geometry
	rotK, rotV   *rotation // nil: no rotation
	kMean, vMean []float32 // [Layers][KVHeads][HeadDim], nil: none
}

// NewTransform makes g's basis; cal is nil where the model has no calibration.
func NewTransform(g *Geometry, cal *Calibration) (*Transform, error) {
	t := &Transform{g: g}
	if cal != nil {
		if err := cal.check(); err != nil {
			return nil, fmt.Errorf("cannot use the calibration: %w", err)
		}
		if cal.Layers != g.Layers || cal.KVHeads != g.KVHeads || cal.HeadDim != g.HeadDim {
			return nil, fmt.Errorf("cannot use the calibration: it is of a model with %d layers, %d KV heads, head_dim %d, this one has %d, %d, %d; run terse calibrate on this model",
				cal.Layers, cal.KVHeads, cal.HeadDim, g.Layers, g.KVHeads, g.HeadDim)
		}
	}
	// f16 subtracts the means too: softmax does not see it, and float16 keeps more
	// digits of what is left. f32 has digits enough and stays plain.
	if (g.Format.Mean || g.Format.Family == FamilyF16 && !g.Format.Wide) && cal != nil {
		t.kMean, t.vMean = cal.KMean, cal.VMean
	}
	if g.Format.Rotate {
		t.rotK, t.rotV = newRotation(g.HeadDim, HalfK), newRotation(g.HeadDim, HalfV)
	}
	return t, nil
}

// Keys takes rows of K ([rows][KVHeads][HeadDim], after RoPE) into the basis.
func (t *Transform) Keys(layer int, k []float32) {
	t.subtract(t.kMean, layer, k)
	t.rotK.forward(k)
}

// Values takes rows of V ([rows][KVHeads][HeadDim]) into the basis.
func (t *Transform) Values(layer int, v []float32) {
	t.subtract(t.vMean, layer, v)
	t.rotV.forward(v)
}

// Queries takes rows of Q ([rows][heads][HeadDim], after RoPE) into K's basis.
// K's mean needs nothing of them: it moves all scores of a row alike.
func (t *Transform) Queries(layer int, q []float32) { t.rotK.forward(q) }

// Outputs takes attention outputs ([rows][heads][HeadDim]) back out of V's
// basis. heads is the number of query heads, a multiple of KVHeads. The mean of
// V returns whole because a row's attention weights sum to 1.
func (t *Transform) Outputs(layer int, o []float32, heads int) {
	t.rotV.inverse(o)
	if t.vMean == nil {
		return
	}
	d, group := t.g.HeadDim, heads/t.g.KVHeads
	for i := 0; i < len(o); i += d {
		kvHead := i / d % heads / group
		for c, m := range t.mean(t.vMean, layer)[kvHead*d : (kvHead+1)*d] {
			o[i+c] += m
		}
	}
}

// mean is one layer's means, [KVHeads][HeadDim].
func (t *Transform) mean(means []float32, layer int) []float32 {
	n := t.g.KVHeads * t.g.HeadDim
	return means[layer*n : (layer+1)*n]
}

func (t *Transform) subtract(means []float32, layer int, x []float32) {
	if means == nil {
		return
	}
	m := t.mean(means, layer)
	for row := range slices.Chunk(x, len(m)) {
		for i, v := range m {
			row[i] -= v
		}
	}
}

// rotation is an orthogonal map of one head's channels: fixed signs, then a
// Hadamard transform of each block. The blocks are the powers of two of which
// head_dim is the sum, largest first (80 = 64 + 16).
type rotation struct {
	signs  []float32 // ±1
	blocks []int
}

func newRotation(d, half int) *rotation {
	r := &rotation{signs: make([]float32, d)}
	for c := range r.signs {
		r.signs[c] = 1 - 2*float32(mix(uint64(half)<<32^uint64(c))&1)
	}
	for bit := 1 << 30; bit > 0; bit >>= 1 {
		if d&bit != 0 {
			r.blocks = append(r.blocks, bit)
		}
	}
	return r
}

// forward turns every head of x in place: x <- H·(signs ⊙ x).
func (r *rotation) forward(x []float32) {
	if r == nil {
		return
	}
	for head := range slices.Chunk(x, len(r.signs)) {
		for c, s := range r.signs {
			head[c] *= s
		}
		r.hadamard(head)
	}
}

// inverse turns every head of x back: x <- signs ⊙ (H·x), H being its own
// inverse.
func (r *rotation) inverse(x []float32) {
	if r == nil {
		return
	}
	for head := range slices.Chunk(x, len(r.signs)) {
		r.hadamard(head)
		for c, s := range r.signs {
			head[c] *= s
		}
	}
}

func (r *rotation) hadamard(x []float32) {
	at := 0
	for _, n := range r.blocks {
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
