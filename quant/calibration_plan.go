package quant

import (
	"encoding/binary"
	"fmt"
)

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
