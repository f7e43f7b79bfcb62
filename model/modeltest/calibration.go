package modeltest

import (
	"math"
	"math/rand/v2"

	"github.com/terse-llm/terse/quant"
)

// Calibration is one of the tiny model, made up: no means, a basis of K, the leading
// channels of each layer as planned, and gains of them.
func Calibration(plan [Layers]uint16) *quant.Calibration {
	const heads = Layers * KVHeads
	c := &quant.Calibration{
		Layers: Layers, KVHeads: KVHeads, HeadDim: HeadDim,
		KMean: make([]float32, heads*HeadDim), VMean: make([]float32, heads*HeadDim), KPlan: plan[:],
	}
	r := rand.New(rand.NewPCG(9, 4))
	for range heads {
		for i := range HeadDim * HeadDim {
			x := r.NormFloat64() * 0.3 / math.Sqrt(HeadDim)
			if i/HeadDim == i%HeadDim {
				x++
			}
			c.KBasis = append(c.KBasis, float32(x))
		}
	}
	for range heads * ((HeadDim - 1) / 16) {
		c.KGain = append(c.KGain, float32(0.8+0.4*r.Float64()))
	}
	return c
}
