package quant

import (
	"errors"
	"fmt"
	"math"
)

// maxCondition bounds what a basis may do to rounding errors: the product of its
// and its inverse's Frobenius norms, of which head_dim is the least possible.
const maxCondition = 1e6

// maxGain bounds what leading channels may be multiplied by, and divided.
const maxGain = 1e3

// balance makes the maps of K and Q into the balanced basis of the calibration:
// k' = R·A·(k - mean) and q' = R·A^-T·q leave all scores as they are, R being the
// Hadamard rotation of each segment, which evens it out.
func (t *Transform) balance(cal *Calibration) error {
	if cal == nil || cal.KBasis == nil {
		return errors.New("it wants the balanced basis of K, and there is no calibration that has it: run terse calibrate on this model")
	}
	d := t.g.HeadDim
	t.kMap, t.qMap = make([]float32, len(cal.KBasis)), make([]float32, len(cal.KBasis))
	a, inverse := make([]float64, d*d), make([]float64, d*d)
	for at := 0; at < len(cal.KBasis); at += d * d {
		layer, head := at/(d*d)/t.g.KVHeads, at/(d*d)%t.g.KVHeads
		turn, lead, gain, err := t.segments(cal, layer, head)
		if err != nil {
			return err
		}
		for i, x := range cal.KBasis[at : at+d*d] {
			a[i] = float64(x)
		}
		k, q := t.kMap[at:at+d*d], t.qMap[at:at+d*d]
		for out := range d {
			for in := range d {
				k[in*d+out] = cal.KBasis[at+out*d+in]
			}
		}
		if err := invert(inverse, a, d); err != nil {
			return fmt.Errorf("the basis of layer %d, KV head %d: %w; run terse calibrate again", layer, head, err)
		}
		for i, x := range inverse { // A^-T, its input's index first
			q[i] = float32(x)
		}
		for in := range d {
			for c := range lead {
				k[in*d+c] *= gain
				q[in*d+c] /= gain
			}
			rotateSegments(turn, k[in*d:(in+1)*d])
			rotateSegments(turn, q[in*d:(in+1)*d])
		}
	}
	return nil
}

// segments is how K's segments turn in one layer (nil: not at all), and the gain of
// the leading channels where they share a scale.
func (t *Transform) segments(cal *Calibration, layer, head int) (turn []*Rotation, lead int, gain float32, err error) {
	l := &t.g.At(layer).HQ[HalfK]
	for _, s := range l.Segments[:l.NSegments] {
		if t.g.Format.Rotate {
			turn = append(turn, newRotation(s.Hi-s.Lo, HalfK))
		}
		if s.Shared {
			lead = s.Hi
		}
	}
	if lead == 0 {
		return turn, 0, 1, nil
	}
	if cal.KGain == nil {
		return nil, 0, 0, errors.New("it wants the gains of K's leading channels, and the calibration has none: run terse calibrate on this model")
	}
	if gain = cal.gain(layer, head, lead); !(gain >= 1/maxGain && gain <= maxGain) {
		return nil, 0, 0, fmt.Errorf("the gain of layer %d, KV head %d is %g; run terse calibrate again", layer, head, gain)
	}
	return turn, lead, gain, nil
}

// rotateSegments turns consecutive runs of channels.
func rotateSegments(turn []*Rotation, x []float32) {
	for _, r := range turn {
		Plain{}.Rotate(x[:len(r.Signs)], r, false)
		x = x[len(r.Signs):]
	}
}

// invert sets inv to the inverse of the d×d matrix a, which it destroys, by
// Gauss-Jordan elimination with partial pivoting.
func invert(inv, a []float64, d int) error {
	norm := frobenius(a)
	clear(inv)
	for i := range d {
		inv[i*d+i] = 1
	}
	for col := range d {
		pivot := col
		for r := col + 1; r < d; r++ {
			if math.Abs(a[r*d+col]) > math.Abs(a[pivot*d+col]) {
				pivot = r
			}
		}
		scale := a[pivot*d+col]
		if math.Abs(scale) < norm/maxCondition/float64(d) {
			return errors.New("it cannot be undone")
		}
		for c := range d {
			a[pivot*d+c], a[col*d+c] = a[col*d+c], a[pivot*d+c]/scale
			inv[pivot*d+c], inv[col*d+c] = inv[col*d+c], inv[pivot*d+c]/scale
		}
		for r := range d {
			f := a[r*d+col]
			if r == col || f == 0 {
				continue
			}
			for c := range d {
				a[r*d+c] -= f * a[col*d+c]
				inv[r*d+c] -= f * inv[col*d+c]
			}
		}
	}
	if c := norm * frobenius(inv); !(c <= maxCondition) {
		return fmt.Errorf("its condition is %.3g, more than %.3g", c, maxCondition)
	}
	return nil
}

func frobenius(a []float64) float64 {
	sum := 0.0
	for _, x := range a {
		sum += x * x
	}
	return math.Sqrt(sum)
}
