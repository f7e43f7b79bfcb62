package eval

import (
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/transfer"
)

// WirePrompt is the length of the prompt whose hand-over a Cost weighs.
const WirePrompt = 4096

// Cost is what a format takes in memory and on the wire for a model's shape.
type Cost struct {
	Format string
	Bits   float64 // of a cached element, scales and sums included, where it is coded
	Wire   float64 // bytes handed over for a prompt of WirePrompt tokens, exact windows included, as a share of float16's
}

// CostOf weighs a format for the subject.
func CostOf(s Subject, format string) (Cost, error) {
	g, top, err := s.geometry(format)
	if err != nil {
		return Cost{}, err
	}
	wire := transfer.HandoverBytes(g, WirePrompt)
	if top {
		wire -= transfer.SecondBytes(g, WirePrompt)
	}
	return Cost{Format: format, Bits: bitsPerElement(g, top), Wire: float64(wire) / float64(transfer.F16Bytes(g, WirePrompt))}, nil
}

func bitsPerElement(g *quant.Geometry, top bool) float64 {
	bytes := g.ExactPage()
	if g.Format.Coded() {
		bytes = g.CodedPage()
	}
	if top {
		bytes -= g.Layers * g.SecondMost()
	}
	const halves = 2 // K and V
	return 8 * float64(bytes) / float64(halves*g.Layers*g.KVHeads*g.HeadDim*g.Format.PageTokens)
}
