package transfer

import (
	"fmt"

	"github.com/terse-llm/terse/quant"
)

// plan numbers what a prompt's hand-over consists of. Part i of layer l, in the
// order of quant.Format.Handover, has the number l·len(parts)+i.
type plan struct {
	g     *quant.Geometry
	n     int  // tokens
	apart bool // second planes are parts of their own, and may come later
	parts []quant.Part
	rows  [][]place // [layer][part]; one row where all layers are alike
}

// place is where a part lies in one layer of its page: nil and the most bytes it may
// come to where that follows from what is in it.
type place struct {
	spans  []quant.Span
	size   int
	likely int // what it comes to, as far as one can tell without it
}

func newPlan(g *quant.Geometry, n int, apart bool) *plan {
	p := &plan{g: g, n: n, apart: apart && g.HasSecond() && !g.Format.Selects(), parts: g.Format.Handover(n)}
	if p.apart {
		p.parts = quant.PlanesApart(p.parts)
	}
	kinds := g.Layers
	if g.Even() {
		kinds = 1
	}
	for layer := range kinds {
		p.rows = append(p.rows, placesOf(g.At(layer), p.parts))
	}
	return p
}

// placesOf is where parts lie in a layer.
func placesOf(g *quant.Geometry, parts []quant.Part) []place {
	var coded [3]*place // by planes: alike in all pages
	row := make([]place, len(parts))
	for i, part := range parts {
		whole := part.Hi == g.Format.PageTokens
		if part.Coded && whole && coded[part.Planes] != nil {
			row[i] = *coded[part.Planes]
			continue
		}
		row[i] = placeOf(g, part)
		if part.Coded && whole {
			coded[part.Planes] = &row[i]
		}
	}
	return row
}

func placeOf(g *quant.Geometry, part quant.Part) (at place) {
	switch {
	case part.Planes == quant.SecondPlane:
		return place{size: g.SecondMost(), likely: g.SecondTypical()}
	case part.Coded && g.Packs():
		return place{size: g.PackedMost(part.Hi), likely: g.PackedTypical(part.Hi)}
	}
	at.spans = g.PartSpans(part)
	for _, s := range at.spans {
		at.size += s.Len
	}
	at.likely = at.size
	return at
}

// packed reports whether a part crosses range-coded.
func (p *plan) packed(part int) bool { return p.parts[part].Coded && p.g.Packs() }

// place is where a part lies in its layer of a page.
func (p *plan) place(number int) *place {
	layer, i := p.at(number)
	return &p.rows[layer%len(p.rows)][i]
}

// count is the number of parts over all layers.
func (p *plan) count() int { return len(p.parts) * p.g.Layers }

func (p *plan) at(number int) (layer, part int) {
	return number / len(p.parts), number % len(p.parts)
}

// pieces are where the parts of spans lie.
func (p *plan) pieces(spans []span) (all []quant.Piece) {
	for _, s := range spans {
		for n := s.first; n < s.first+s.count; n++ {
			layer, i := p.at(int(n))
			all = append(all, quant.Piece{Layer: layer, Page: p.parts[i].Page, Coded: p.parts[i].Coded})
		}
	}
	return all
}

func (p *plan) bytesOf(number int) int { return p.place(number).size }

// bytes of spans of parts.
func (p *plan) bytes(spans []span) int64 {
	var n int64
	for _, s := range spans {
		for i := s.first; i < s.first+s.count; i++ {
			n += int64(p.bytesOf(int(i)))
		}
	}
	return n
}

// spansOf is the bytes of a part in its layer of a page: of second planes, those
// that there are.
func (p *plan) spansOf(number int, page []byte) []quant.Span {
	if layer, i := p.at(number); p.parts[i].Planes == quant.SecondPlane {
		return p.g.At(layer).SecondSpans(page)
	}
	return p.place(number).spans
}

// sizeIn is the size of a part at the head of data.
func (p *plan) sizeIn(number int, data []byte) (int, error) {
	layer, i := p.at(number)
	size := p.bytesOf(number)
	switch {
	case p.parts[i].Planes == quant.SecondPlane:
		return p.g.At(layer).SecondLen(data)
	case p.packed(i):
		return p.g.At(layer).PackedLen(data, p.parts[i].Hi)
	case len(data) < size:
		return 0, fmt.Errorf("part %d of %d bytes in %d", number, size, len(data))
	}
	return size, nil
}

// fit refuses data that is not the parts of spans, one after the other.
func (p *plan) fit(spans []span, data []byte) error {
	for _, s := range spans {
		for n := s.first; n < s.first+s.count; n++ {
			size, err := p.sizeIn(int(n), data)
			if err != nil {
				return fmt.Errorf("KV frame: %w", err)
			}
			data = data[size:]
		}
	}
	if len(data) > 0 {
		return fmt.Errorf("KV frame with %d bytes after its parts", len(data))
	}
	return nil
}

// later reports whether a part may come when decoding has begun.
func (p *plan) later(number int) bool {
	return p.apart && p.parts[number%len(p.parts)].Planes == quant.SecondPlane
}

// whole reports whether a part can be sent when the first t tokens of its layer
// are written.
func (p *plan) whole(part, t int) bool {
	q := &p.parts[part]
	return t >= p.n || q.Page*p.g.Format.PageTokens+q.Hi <= t
}

// page is the bytes that a part lies in: one layer of a page in its form, nil
// where the view has no such page.
func (p *plan) page(v *quant.View, number int) []byte {
	layer, i := p.at(number)
	if part := p.parts[i]; part.Coded {
		return v.CodedLayer(part.Page, layer)
	} else {
		return v.ExactLayer(part.Page, layer)
	}
}

// maxPart is the largest part that a geometry can have.
func maxPart(g *quant.Geometry) int {
	most := g.ExactBytes()
	for layer := range g.Layers {
		layer := g.At(layer)
		most = max(most, layer.CodedBytes())
		if g.Packs() {
			most = max(most, layer.PackedMost(g.Format.PageTokens))
		}
	}
	return most
}

// maxFrame bounds the payload of a KV frame.
func maxFrame(g *quant.Geometry) int { return 2*frameTarget + maxPart(g) }

// total is the bytes of all parts over all layers.
func (p *plan) total() int64 {
	var n int64
	for layer := range p.g.Layers {
		for _, at := range p.rows[layer%len(p.rows)] {
			n += int64(at.size)
		}
	}
	return n
}

// HandoverBytes is the KV payload of a prompt of n tokens, over all layers, where
// important tokens are spread evenly and levels come as often as they are said to.
func HandoverBytes(g *quant.Geometry, n int) int64 {
	p := newPlan(g, n, false)
	var total int64
	for number := range p.count() {
		total += int64(p.place(number).likely)
	}
	return total
}

// SecondBytes is the part of HandoverBytes that may come later.
func SecondBytes(g *quant.Geometry, n int) int64 {
	p := newPlan(g, n, true)
	var total int64
	for number := range p.count() {
		if p.later(number) {
			total += int64(p.place(number).likely)
		}
	}
	return total
}

// F16Bytes is what the KV of n tokens is in float16, over all layers: the
// yardstick that every format is compared with.
func F16Bytes(g *quant.Geometry, n int) int64 {
	return int64(n) * int64(g.Layers) * int64(g.KVHeads) * int64(g.HeadDim) * 2 * 2
}

// addSpan appends part number to spans, growing the last one where it follows.
func addSpan(spans []span, number int) []span {
	if n := len(spans); n > 0 && spans[n-1].first+spans[n-1].count == uint32(number) {
		spans[n-1].count++
		return spans
	}
	return append(spans, span{uint32(number), 1})
}
