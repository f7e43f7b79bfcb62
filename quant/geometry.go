package quant

import "fmt"

// Geometry is a format laid out for a model's shape: where everything lies in
// the bytes of a page. It is immutable and shared.
type Geometry struct {
	Format  Format
	Layers  int
	KVHeads int
	HeadDim int
}

// NewGeometry lays f out for a model's shape, refusing what cannot be laid out.
func NewGeometry(f Format, layers, kvHeads, headDim int) (*Geometry, error) {
	if layers < 1 || kvHeads < 1 || headDim < 1 {
		return nil, fmt.Errorf("cannot lay out KV format %s: %d layers, %d KV heads, head_dim %d", f.Name, layers, kvHeads, headDim)
	}
	return &Geometry{Format: f, Layers: layers, KVHeads: kvHeads, HeadDim: headDim}, nil
}

// ExactBytes is the size of one layer of an exact page: [head][K then V][token]
// [channel] float16, head-major so that one head's half is contiguous.
func (g *Geometry) ExactBytes() int { return g.KVHeads * 2 * g.exactHalf() }

func (g *Geometry) exactHalf() int { return g.Format.PageTokens * g.HeadDim * 2 }

// ExactK is head's K half of one layer of an exact page: [token][channel] float16.
func (g *Geometry) ExactK(page []byte, head int) []byte {
	n := g.exactHalf()
	return page[2*head*n : (2*head+1)*n : (2*head+1)*n]
}

// ExactV is head's V half, laid out as K's.
func (g *Geometry) ExactV(page []byte, head int) []byte {
	n := g.exactHalf()
	return page[(2*head+1)*n : (2*head+2)*n : (2*head+2)*n]
}

// Span is a run of bytes of one layer of a page.
type Span struct{ Off, Len int }

// ExactSpans are the bytes of tokens [lo, hi) of one layer of an exact page, of
// the halves asked for: what the wire carries of a partly needed page.
func (g *Geometry) ExactSpans(lo, hi int, k, v bool) []Span {
	half, tok := g.exactHalf(), g.HeadDim*2
	var s []Span
	for h := range g.KVHeads {
		for i, want := range []bool{k, v} {
			if want {
				s = append(s, Span{(2*h+i)*half + lo*tok, (hi - lo) * tok})
			}
		}
	}
	return s
}

// PartSpans are the bytes of one layer that a hand-over part moves.
func (g *Geometry) PartSpans(p Part) []Span {
	if p.Coded {
		return []Span{{0, g.CodedBytes()}}
	}
	return g.ExactSpans(p.Lo, p.Hi, p.K, p.V)
}
