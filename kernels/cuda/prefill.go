package cuda

import (
	"fmt"
	"strings"

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
	LowRows                [2]int32
	Refined                int32
	States                 Ptr
}

// Query vectors and threads of a block, and parts of its shared memory: Prefill's,
// Wide's and ExactWide's.
const (
	prefillVectors = 64
	prefillThreads = 128
	prefillStages  = 4
	leadKeys       = 8 * 512 // Prefill::kLeadKeys
	wideVectors    = 192
	wideBarriers   = 160 // bytes, of Wide::Shared at most
	exactSlots     = 6   // ExactWide::Shared
	exactBarriers  = 96
)

// Prefiller attends for prompts on pages of one format with head_dim 64 or 128.
type Prefiller struct {
	g      *quant.Geometry
	group  int
	recent int
	wide   bool // a kernel with Hopper's warpgroup products
	alone  bool // the one of exact pages alone
	states Ptr  // where the rows' states go, if anywhere
	f      Function
	whole  *Prefiller // of exact pages alone, where p's rows may read no others

	vectors, threads int // of a block
}

// NewPrefiller picks the kernel for a geometry; group is the number of query
// heads of a KV head.
func (c *Context) NewPrefiller(m Module, g *quant.Geometry, group int) (*Prefiller, error) {
	return c.newPrefiller(m, &Prefiller{g: g, group: group, wide: c.hopper()})
}

func (c *Context) newPrefiller(m Module, p *Prefiller) (*Prefiller, error) {
	p.recent = p.g.Format.Recent
	if p.wide && p.g.Format.ExactPrefill && !p.alone {
		whole, err := c.newPrefiller(m, &Prefiller{g: p.g, group: p.group, wide: true, alone: true})
		if err != nil {
			return nil, err
		}
		p.whole = whole
	}
	name, err := p.kernel()
	if err != nil {
		return nil, err
	}
	most := 0
	for layer := range p.g.Layers {
		most = max(most, p.shared(layer))
	}
	p.f, err = c.Function(m, name, most)
	return p, err
}

// shared is the shared memory of a block in one layer.
func (p *Prefiller) shared(layer int) int {
	g := p.g
	if p.alone {
		return (exactSlots*2*pageTokens+p.vectors)*2*g.HeadDim + exactBarriers
	}
	bytes := g.At(layer).HeadBytes
	if p.wide {
		if g.Format.K.Second == quant.SecondShared { // room for all channels
			bytes = 4*pageTokens + 3*pageTokens*g.HeadDim/4
		}
		w := wideShape(g.HeadDim)
		return (w.slots*4*pageTokens+wideVectors*2)*g.HeadDim + 128*w.codes + w.stages*bytes + wideBarriers
	}
	n := prefillStages*bytes + 2*pageTokens*g.HeadDim
	if someTokens(g.Format.V) { // their second planes in full
		n += 2 * pageTokens * g.HeadDim / 4
	}
	if g.Format.K.Second == quant.SecondLeading {
		n += 2 * leadKeys
	}
	return n
}

// kernel is the name of the kernel for p's format (src/kernels.cu). Where there is
// no wide one, the other serves; f16 then uses a coded format's, which reads exact
// pages alone.
func (p *Prefiller) kernel() (string, error) {
	base, err := attentionBase(p.g)
	p.alone = p.alone || base == "f16" && p.wide
	switch {
	case err != nil:
		return "", err
	case p.alone:
		groups := exactGroups(p.g.HeadDim)
		p.vectors, p.threads = 64*groups, 128*(groups+1)
		return fmt.Sprintf("exactwide_%d", p.g.HeadDim), nil
	case base == "f16":
		base = "hq2_sym"
	}
	if strings.Contains(base, "some") {
		p.wide = false
	}
	if p.wide {
		p.vectors, p.threads = wideVectors, wideShape(p.g.HeadDim).threads
		return fmt.Sprintf("wide_%s_%d", base, p.g.HeadDim), nil
	}
	p.vectors, p.threads = prefillVectors, prefillThreads
	return fmt.Sprintf("prefill_%s_%d", base, p.g.HeadDim), nil
}

// wideBlock is the block of a Wide: its threads, operands, pages on their way to them, and
// rows of 128 coded channels.
type wideBlock struct{ threads, slots, stages, codes int }

func wideShape(headDim int) wideBlock {
	if headDim == 64 {
		return wideBlock{640, 8, 4, 1}
	}
	return wideBlock{512, 4, 3, wideVectors}
}

// exactGroups is ExactWide's warpgroups that attend.
func exactGroups(headDim int) int {
	if headDim == 64 {
		return 3
	}
	return 2
}

// Recent is p for rows that read other than the format's last tokens exactly.
func (p *Prefiller) Recent(n int) *Prefiller {
	q := *p
	q.recent = n
	return &q
}

// Exact is p for rows of a prompt that read all exactly from token from on, or from
// the first where from is 0; what is before it exists as codes only. States, if not 0,
// is where their softmax states go: of each vector in out, two float32.
func (p *Prefiller) Exact(from int, states Ptr) *Prefiller {
	q := *p
	if from == 0 && p.whole != nil {
		q = *p.whole
	}
	q.recent, q.states = ^from, states
	return &q
}

// Prefill puts one layer's attention of rows of one sequence, at positions from
// position on, into the stream. q and out are [row][KV head][group][head_dim]
// float32 in the cache's basis; coded and exact are the sequence's tables of page
// addresses, in which the rows' own K and V stand already.
func (c *Context) Prefill(p *Prefiller, layer, position, rows int, coded, exact, q, out Ptr, scale float32, s Stream) error {
	if rows < 1 {
		return nil
	}
	g := p.g
	params := prefillParams{
		Coded: coded, Exact: exact, CodedLayer: uint64(g.CodedStart(layer)), ExactLayer: uint64(layer * g.ExactBytes()),
		Q: q, Out: out, Position: int32(position), Rows: int32(rows), Heads: int32(g.KVHeads), Group: int32(p.group),
		Sinks: int32(g.Format.Sinks), Recent: int32(p.recent), Scale: scale * log2e, LowRows: lowRows(g, layer), Refined: refined(g.Format), States: p.states,
	}
	if !g.Format.Coded() {
		params.Recent = -1
	}
	blocks := (rows*p.group + p.vectors - 1) / p.vectors
	return c.Launch(p.f, Shape{Grid: [3]int{blocks, g.KVHeads, 1}, Block: p.threads, Shared: p.shared(layer)}, s, paramBytes(&params))
}
