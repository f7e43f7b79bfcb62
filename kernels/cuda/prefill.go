package cuda

import (
	"fmt"

	"github.com/terse-llm/terse/quant"
)

// prefillParams is the prompt kernels' parameter (src/prefill.cuh).
type prefillParams struct {
	Coded, Exact           Ptr
	CodedLayer, ExactLayer uint64
	Q, Out                 Ptr
	Position, Rows         int32
	Heads, Group           int32
	Sinks, Recent          int32
	Scale                  float32
	_                      int32
}

const (
	prefillVectors = 64 // of a block
	prefillStages  = 4
)

// Prefiller attends for prompts on pages of one format with head_dim 128.
type Prefiller struct {
	g      *quant.Geometry
	group  int
	shared int
	f      Function
}

// NewPrefiller picks the kernel for a geometry; group is the number of query
// heads of a KV head. f16 uses a coded format's kernel, which then reads exact
// pages alone.
func (c *Context) NewPrefiller(m Module, g *quant.Geometry, group int) (*Prefiller, error) {
	p := &Prefiller{g: g, group: group, shared: prefillStages*max(g.HeadBytes, 4352) + 2*fastTokens*fastDim}
	f := g.Format
	symmetry := "asym"
	if f.Symmetric {
		symmetry = "sym"
	}
	base := ""
	switch k, v := f.K.Second, f.V.Second; {
	case g.HeadDim != fastDim || f.PageTokens != fastTokens || f.Wide:
	case !f.Coded():
		base, symmetry = "hq2", "sym"
	case f.Family != quant.FamilyHQ:
	case k == quant.SecondNone && v == quant.SecondNone:
		base = "hq2"
	case k == quant.SecondAll && v == quant.SecondNone:
		base = "hq3"
	case k == quant.SecondAll && v == quant.SecondAll:
		base = "hq4"
	}
	if base == "" {
		return nil, fmt.Errorf("cannot prefill with KV format %s and head_dim %d on the GPU: there is no kernel for it; choose hq2, hq3, hq4 or f16 and head_dim %d", f.Name, g.HeadDim, fastDim)
	}
	var err error
	p.f, err = c.Function(m, fmt.Sprintf("prefill_%s_%s", base, symmetry), p.shared)
	return p, err
}

// Prefill puts one layer's attention of rows of one sequence, at positions from
// position on, into the stream. q and out are [row][KV head][group][128] float32
// in the cache's basis; coded and exact are the sequence's tables of page
// addresses, in which the rows' own K and V stand already.
func (c *Context) Prefill(p *Prefiller, layer, position, rows int, coded, exact, q, out Ptr, scale float32, s Stream) error {
	if rows < 1 {
		return nil
	}
	g := p.g
	params := prefillParams{
		Coded: coded, Exact: exact, CodedLayer: uint64(layer * g.CodedBytes()), ExactLayer: uint64(layer * g.ExactBytes()),
		Q: q, Out: out, Position: int32(position), Rows: int32(rows), Heads: int32(g.KVHeads), Group: int32(p.group),
		Sinks: int32(g.Format.Sinks), Recent: int32(g.Format.Recent), Scale: scale * log2e,
	}
	if !g.Format.Coded() {
		params.Recent = -1
	}
	blocks := (rows*p.group + prefillVectors - 1) / prefillVectors
	return c.Launch(p.f, Shape{Grid: [3]int{blocks, g.KVHeads, 1}, Block: 2 * prefillVectors, Shared: p.shared}, s, paramBytes(&params))
}
