package bench

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// MadeUp is a calibration for random weights, which have nothing to be calibrated on:
// what is coded with it takes the time that a real one's codes take and means nothing.
// Means are zero, bases of K are reflections in random planes, gains are one, and
// layers gain differently by leading channels, which are planned for budget bits per
// element of K and V.
func MadeUp(c *model.Config, budget float64) (*quant.Calibration, error) {
	heads, d := c.Layers*c.KVHeads, c.HeadDim
	cal := &quant.Calibration{
		Layers: c.Layers, KVHeads: c.KVHeads, HeadDim: d,
		KMean: make([]float32, heads*d), VMean: make([]float32, heads*d),
	}
	r := rand.New(rand.NewPCG(1, 8))
	for range heads {
		cal.KBasis = append(cal.KBasis, reflection(r, d)...)
	}
	for range heads * ((d - 1) / 16) {
		cal.KGain = append(cal.KGain, 1)
	}
	for range c.Layers {
		harm := math.Exp(r.NormFloat64())
		for _, n := range quant.Leadings(d) {
			cal.KHarm = append(cal.KHarm, float32(harm*math.Exp(-3*float64(n)/float64(d))))
		}
	}
	f, err := quant.ParseFormat(fmt.Sprintf("hq2b,budget=%g", budget), true)
	if err != nil {
		return nil, err
	}
	cal.KPlan, err = cal.Plan(f)
	return cal, err
}

// reflection is the matrix of a reflection in the plane across a random direction.
func reflection(r *rand.Rand, d int) []float32 {
	across, norm := make([]float64, d), 0.0
	for i := range across {
		across[i] = r.NormFloat64()
		norm += across[i] * across[i]
	}
	m := make([]float32, d*d)
	for i := range m {
		x := -2 * across[i/d] * across[i%d] / norm
		if i/d == i%d {
			x++
		}
		m[i] = float32(x)
	}
	return m
}

// layOut lays a format out, and gives the calibration that it is used with: a made-up
// one where only that lets it be.
func (o *DeviceOptions) layOut(format string) (*quant.Geometry, *quant.Calibration, error) {
	cal := o.Calibration
	if o.makesUp(format) {
		cal = o.MadeUp
	}
	f, err := quant.ParseFormat(format, cal != nil)
	if err != nil {
		return nil, nil, err
	}
	g, err := o.Config.CalibratedGeometry(f, cal)
	return g, cal, err
}

// makesUp reports whether a format is timed with a made-up calibration.
func (o *DeviceOptions) makesUp(format string) bool {
	if o.Calibration != nil || o.MadeUp == nil {
		return false
	}
	f, err := quant.ParseFormat(format, true)
	return err == nil && f.Balanced
}
