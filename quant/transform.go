package quant

import (
	"fmt"
)

// Transform takes K, V and queries into the cache's basis and outputs back. It
// is immutable and safe for concurrent use. For formats that neither rotate nor
// subtract means it does nothing. Its methods take the arithmetic to use.
type Transform struct {
	g              *Geometry
	rotK, rotV     *Rotation // nil: no rotation
	kShift, vShift []float32 // what is added to K and V, minus the means: [Layers][KVHeads][HeadDim]; nil: none
	vMean          []float32 // what outputs get back
	// In the balanced basis what takes K (Q) there, in place of rotK:
	// [Layers][KVHeads][HeadDim in][HeadDim out].
	kMap, qMap []float32
}

// Rotator is the arithmetic of a change of basis. Implementations must give the
// bits of [Plain] (in Map but for fused multiply-adds): caches travel between
// machines.
type Rotator interface {
	// Rotate turns every head of x (runs of len(r.Signs) elements) in place, or
	// turns it back.
	Rotate(x []float32, r *Rotation, inverse bool)
	// Add adds y to every run of len(y) elements of x.
	Add(x, y []float32)
	// Map multiplies every head of x ([rows][heads][d]) in place with the matrix of
	// its KV head: y[out] = Σ_in x[in]·m[in][out], m being [KV heads][d][d], in
	// order.
	Map(x []float32, heads, d int, m []float32)
}

// NewTransform makes g's basis; cal is nil where the model has no calibration.
func NewTransform(g *Geometry, cal *Calibration) (*Transform, error) {
	t := &Transform{g: g}
	if cal != nil {
		if err := cal.check(); err != nil {
			return nil, fmt.Errorf("cannot use the calibration: %w", err)
		}
		if err := cal.fits(g); err != nil {
			return nil, fmt.Errorf("cannot use the calibration: %w", err)
		}
	}
	// f16 subtracts the means too: softmax does not see it, and float16 keeps more
	// digits of what is left. f32 has digits enough and stays plain.
	if (g.Format.Mean || g.Format.Family == FamilyF16 && !g.Format.Wide) && cal != nil {
		t.kShift, t.vShift, t.vMean = negated(cal.KMean), negated(cal.VMean), cal.VMean
	}
	if g.Format.Rotate {
		t.rotK, t.rotV = newRotation(g.HeadDim, HalfK), newRotation(g.HeadDim, HalfV)
	}
	if g.Format.Balanced {
		t.rotK = nil
		if err := t.balance(cal); err != nil {
			return nil, fmt.Errorf("cannot use KV format %s: %w", g.Format.Name, err)
		}
	}
	if g.Format.Family == FamilyKVQuant {
		with := *g
		var fit *NUQ
		if cal != nil {
			fit = cal.NUQ
		}
		var err error
		if with.Tables, err = g.newNUQTables(fit); err != nil {
			return nil, fmt.Errorf("cannot use KV format %s: %w", g.Format.Name, err)
		}
		t.g = &with
	}
	return t, nil
}

// Geometry is the geometry that the transform was made of, with what its format
// needs of the calibration: pages are coded and read by it.
func (t *Transform) Geometry() *Geometry { return t.g }

func negated(x []float32) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = -v
	}
	return y
}

// Keys takes rows of K ([rows][KVHeads][HeadDim], after RoPE) into the basis.
func (t *Transform) Keys(ro Rotator, layer int, k []float32) {
	t.enter(ro, k, t.rotK, t.kShift, layer)
	if t.kMap != nil {
		ro.Map(k, t.g.KVHeads, t.g.HeadDim, t.maps(t.kMap, layer))
	}
}

// Values takes rows of V ([rows][KVHeads][HeadDim]) into the basis.
func (t *Transform) Values(ro Rotator, layer int, v []float32) {
	t.enter(ro, v, t.rotV, t.vShift, layer)
}

func (t *Transform) enter(ro Rotator, x []float32, r *Rotation, shifts []float32, layer int) {
	if shifts != nil {
		ro.Add(x, t.of(shifts, layer))
	}
	if r != nil {
		ro.Rotate(x, r, false)
	}
}

// Queries takes rows of Q ([rows][heads][HeadDim], after RoPE) into K's basis.
// K's mean needs nothing of them: it moves all scores of a row alike. heads is the
// number of query heads, a multiple of KVHeads.
func (t *Transform) Queries(ro Rotator, layer int, q []float32, heads int) {
	if t.qMap != nil && len(q) > 0 {
		ro.Map(q, heads, t.g.HeadDim, t.maps(t.qMap, layer))
	}
	if t.rotK != nil {
		ro.Rotate(q, t.rotK, false)
	}
}

// Outputs takes attention outputs ([rows][heads][HeadDim]) back out of V's
// basis. heads is the number of query heads, a multiple of KVHeads. The mean of
// V returns whole because a row's attention weights sum to 1.
func (t *Transform) Outputs(ro Rotator, layer int, o []float32, heads int) {
	if t.rotV != nil {
		ro.Rotate(o, t.rotV, true)
	}
	if t.vMean == nil {
		return
	}
	d, mean := t.g.HeadDim, t.of(t.vMean, layer)
	width := heads / t.g.KVHeads * d // of the query heads of one KV head
	for i, kvHead := 0, 0; i < len(o); i, kvHead = i+width, (kvHead+1)%t.g.KVHeads {
		ro.Add(o[i:i+width], mean[kvHead*d:(kvHead+1)*d])
	}
}

// of is one layer's part of per-channel numbers, [KVHeads][HeadDim].
func (t *Transform) of(x []float32, layer int) []float32 {
	n := t.g.KVHeads * t.g.HeadDim
	return x[layer*n : (layer+1)*n]
}

// maps is one layer's part of matrices.
func (t *Transform) maps(x []float32, layer int) []float32 {
	n := t.g.KVHeads * t.g.HeadDim * t.g.HeadDim
	return x[layer*n : (layer+1)*n]
}
