package quant

import (
	"encoding/binary"
	"fmt"
)

// Leadings are the numbers of leading channels that a layer of heads of d channels may
// have in 4 bits.
func Leadings(d int) []int {
	var all []int
	for n := 0; n < d; n += 16 {
		all = append(all, n)
	}
	return append(all, d)
}

// PlannedBytes is what a token of one head takes in a layer of a planned format with
// so many leading channels, times the tokens of a page: K, and V without the planes of
// important tokens.
func PlannedBytes(f Format, leading, headDim int) int {
	f.K = planned(leading, headDim)
	if f.V.Second == SecondImportant {
		f.V = Half{}
	}
	g := Geometry{Format: f, Layers: 1, KVHeads: 1, HeadDim: headDim}
	g.layHQ()
	return g.HeadBytes
}

// Plan is the leading channels of every layer within the format's budget: to whom
// they do most good per byte, first. It wants KHarm. Sums are whole numbers, so that
// all machines plan alike.
func (c *Calibration) Plan(f Format) ([]uint16, error) {
	leads := Leadings(c.HeadDim)
	sizes := make([]int, len(leads))
	for i, n := range leads {
		sizes[i] = PlannedBytes(f, n, c.HeadDim)
	}
	left := f.Budget*c.Layers*2*f.PageTokens*c.HeadDim/8000 - c.Layers*sizes[0]
	if left < 0 {
		return nil, fmt.Errorf("%s bits per element: codes without a second plane take %.4g", f.budget(), float64(8*sizes[0])/float64(2*f.PageTokens*c.HeadDim))
	}
	chosen := make([]int, c.Layers)
	for {
		best, layerOf, to := 0.0, 0, 0
		for layer, now := range chosen {
			harm := c.KHarm[layer*len(leads):]
			for i := now + 1; i < len(leads); i++ {
				cost := sizes[i] - sizes[now]
				if worth := (float64(harm[now]) - float64(harm[i])) / float64(cost); cost <= left && worth > best {
					best, layerOf, to = worth, layer, i
				}
			}
		}
		if best == 0 {
			break
		}
		left -= sizes[to] - sizes[chosen[layerOf]]
		chosen[layerOf] = to
	}
	plan := make([]uint16, c.Layers)
	for layer, i := range chosen {
		plan[layer] = uint16(leads[i])
	}
	return plan, nil
}

// HeadRanks are the ranks of HeadQ that a calibration tells the harm of.
func HeadRanks() []int { return []int{1, 2, 4} }

// headQSection is HeadQ, float32: of each layer the rank, and the harm of the others.
func headQSection() section {
	s := floatSection("headq", false, func(c *Calibration) int { return c.Layers * (1 + len(HeadRanks())) }, func(c *Calibration) *[]float32 { return &c.HeadQ })
	numbers := s.check
	s.check = func(c *Calibration) error {
		if err := numbers(c); err != nil {
			return err
		}
		for layer := range c.Layers {
			if rank := c.HeadQ[layer*(1+len(HeadRanks()))]; rank != 0 {
				return fmt.Errorf("layer %d wants a residual of rank %g: no format has one", layer, rank)
			}
		}
		return nil
	}
	return s
}

// gains is the number of KGain.
func (c *Calibration) gains() int { return c.Layers * c.KVHeads * ((c.HeadDim - 1) / 16) }

// gain is what multiplies the leading n channels of one layer's KV head.
func (c *Calibration) gain(layer, head, n int) float32 {
	return c.KGain[(layer*c.KVHeads+head)*((c.HeadDim-1)/16)+n/16-1]
}

// planSection is KPlan, little-endian uint16.
func planSection() section {
	return section{name: "k_plan",
		get: func(c *Calibration) (b []byte) {
			for _, n := range c.KPlan {
				b = binary.LittleEndian.AppendUint16(b, n)
			}
			return b
		},
		put: func(c *Calibration, body []byte) error {
			if len(body) != 2*c.Layers {
				return fmt.Errorf("%d layers want %d bytes, found %d", c.Layers, 2*c.Layers, len(body))
			}
			for i := range c.Layers {
				c.KPlan = append(c.KPlan, binary.LittleEndian.Uint16(body[2*i:]))
			}
			return nil
		},
		check: func(c *Calibration) error {
			if len(c.KPlan) != c.Layers {
				return fmt.Errorf("%d layers want as many numbers, found %d", c.Layers, len(c.KPlan))
			}
			for i, n := range c.KPlan {
				if int(n) > c.HeadDim || n%16 != 0 && int(n) != c.HeadDim {
					return fmt.Errorf("layer %d has %d leading channels; want a multiple of 16, or head_dim %d", i, n, c.HeadDim)
				}
			}
			return nil
		}}
}
