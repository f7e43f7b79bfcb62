package transfer

import "github.com/terse-llm/terse/quant"

// Progress turns "this layer is written up to token t" into the parts that can
// be sent now. Prefill runs layer by layer within a chunk of the prompt, so
// each layer has its own frontier.
type Progress struct {
	format quant.Format
	n      int
	parts  []quant.Part
	index  map[quant.Part]int
	sent   [][]bool // [layer][part]
	left   int
}

// NewProgress prepares the hand-over of a prompt of n tokens.
func NewProgress(g *quant.Geometry, n int) *Progress {
	p := &Progress{format: g.Format, n: n, parts: g.Format.Handover(n), sent: make([][]bool, g.Layers)}
	p.index = make(map[quant.Part]int, len(p.parts))
	for i, part := range p.parts {
		p.index[part] = i
	}
	for i := range p.sent {
		p.sent[i] = make([]bool, len(p.parts))
	}
	p.left = len(p.parts) * g.Layers
	return p
}

// Ready lists the parts of layer that became whole when its first t tokens were
// written and were not listed before.
func (p *Progress) Ready(layer, t int) []quant.Part {
	var ready []quant.Part
	for i, part := range p.parts {
		if p.sent[layer][i] || !p.whole(part, t) {
			continue
		}
		p.sent[layer][i] = true
		p.left--
		ready = append(ready, part)
	}
	return ready
}

func (p *Progress) whole(part quant.Part, t int) bool {
	return t >= p.n || part.Page*p.format.PageTokens+part.Hi <= t
}

// Done reports whether everything was listed.
func (p *Progress) Done() bool { return p.left == 0 }

// take marks a part of layer as received. It is the receiver's check: false if
// the part is not due, or came before.
func (p *Progress) take(layer int, part quant.Part) bool {
	i, due := p.index[part]
	if !due || p.sent[layer][i] {
		return false
	}
	p.sent[layer][i] = true
	p.left--
	return true
}
