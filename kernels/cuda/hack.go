package cuda

import (
	"fmt"

	"github.com/terse-llm/terse/quant"
)

// hackHalf, hackFormat, hackAttendParams and hackEncodeParams are the hack
// kernels' parameters (src/hack.cuh).
type hackHalf struct {
	Min, Scale, Sums, SumBytes int32
	Planes                     [4]int32
	Begin, End                 int32
}

type hackFormat struct {
	Half                                    [2]hackHalf
	Seed                                    uint64
	Layer, HeadBytes                        int32
	V2, Stochastic, RQE                     int32
	PageTokens, Partition, Parts, PartWidth int32
	Planes, Sinks                           int32
	_                                       int32
}

type hackAttendParams struct {
	F                      hackFormat
	Coded, Exact           Ptr
	CodedLayer, ExactLayer uint64
	Q, Out, Positions      Ptr
	Position               int32
	Pages, Heads, Group    int32
	Scale                  float32
	AllExact               int32
}

type hackEncodeParams struct {
	F                      hackFormat
	X                      [2]Ptr
	Exact, Coded           Ptr
	ExactLayer, CodedLayer uint64
	Position, Rows, Heads  int32
	_                      int32
}

// The kernels' blocks and shared memory (HackAttend::Shared, HackEncode::Shared).
const (
	hackAttendThreads = 128
	hackEncodeThreads = 256
	hackTokens        = 128 // of a page, at most
)

func hackAttendShared(dim int) int {
	warp := 4*hackTokens + 4*dim + dim + hackTokens + 4*12 + 4
	return 4*(warp+8+4*128) + 16
}

func hackEncodeShared(dim int) int { return 3 * hackTokens * dim }

// Hack attends and codes in the hack layouts with head_dim 64 or 128: the
// baseline, right before fast. The bytes are those of quant.Encode, and a row's
// arithmetic that of docs/formats.md.
type Hack struct {
	g              *quant.Geometry
	group          int
	f              hackFormat
	attend, encode Function
}

// NewHack picks the kernels for a geometry; group is the number of query heads of
// a KV head.
func (c *Context) NewHack(m Module, g *quant.Geometry, group int) (*Hack, error) {
	f := g.Format
	if f.Family != quant.FamilyHack && f.Family != quant.FamilyHackV2 || g.HeadDim != 64 && g.HeadDim != 128 {
		return nil, fmt.Errorf("cannot use KV format %s with head_dim %d on the GPU as a hack layout: these kernels are for hack, hack:v2 and head_dim 64 or 128", f.Name, g.HeadDim)
	}
	h := &Hack{g: g, group: group}
	ends := [2]int{g.Hack[quant.HalfV].Min, g.HeadBytes}
	for half := range 2 {
		l := &g.Hack[half]
		to := &h.f.Half[half]
		*to = hackHalf{Min: int32(l.Min), Scale: int32(l.Scale), Sums: int32(l.Sums), SumBytes: int32(l.SumBytes), Begin: int32(l.Min), End: int32(ends[half])}
		for i := range l.NPlanes {
			to.Planes[i] = int32(l.Planes[i])
		}
	}
	l := &g.Hack[quant.HalfK]
	h.f.Seed, h.f.HeadBytes = f.Seed, int32(g.HeadBytes)
	h.f.V2, h.f.Stochastic, h.f.RQE = flag32(f.Family == quant.FamilyHackV2), flag32(f.Stochastic), flag32(f.RQE)
	h.f.PageTokens, h.f.Partition, h.f.Parts, h.f.PartWidth = int32(f.PageTokens), int32(f.Partition), int32(l.Parts), int32(l.PartWidth)
	h.f.Planes, h.f.Sinks = int32(l.NPlanes), int32(f.Sinks)
	var err error
	if h.attend, err = c.Function(m, fmt.Sprintf("hack_attend_%d", g.HeadDim), hackAttendShared(g.HeadDim)); err != nil {
		return nil, err
	}
	h.encode, err = c.Function(m, fmt.Sprintf("hack_encode_%d", g.HeadDim), hackEncodeShared(g.HeadDim))
	return h, err
}

func flag32(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// HackRows are the rows of an attention call. With Positions (int32, on the
// device) each is one of a sequence of its own, whose tables follow one another;
// without, they are rows of one sequence from Position on.
type HackRows struct {
	Rows, Position int
	Positions      Ptr
	Exact          bool // all is read exactly: prompt rows of formats with ExactPrefill
}

// HackAttend puts one layer's attention of rows into the stream: q and out are
// [row][KV head][group][head_dim] float32. scale multiplies q·k.
func (c *Context) HackAttend(h *Hack, t Tables, layer int, rows HackRows, q, out Ptr, scale float32, s Stream) error {
	if rows.Rows < 1 {
		return nil
	}
	g := h.g
	p := hackAttendParams{
		F: h.f, Coded: t.Coded, Exact: t.Exact, CodedLayer: uint64(layer * g.CodedBytes()), ExactLayer: uint64(layer * g.ExactBytes()),
		Q: q, Out: out, Positions: rows.Positions, Position: int32(rows.Position),
		Pages: int32(t.Pages), Heads: int32(g.KVHeads), Group: int32(h.group), Scale: scale * log2e, AllExact: flag32(rows.Exact),
	}
	p.F.Layer = int32(layer)
	return c.Launch(h.attend, Shape{Grid: [3]int{rows.Rows * h.group, g.KVHeads, 1}, Block: hackAttendThreads, Shared: hackAttendShared(g.HeadDim)}, s, paramBytes(&p))
}

// HackAppend puts rows tokens from position on of one layer into a sequence's
// pages, as Append does.
func (c *Context) HackAppend(h *Hack, layer, position, rows int, k, v, exact, coded Ptr, s Stream) error {
	if rows < 1 {
		return nil
	}
	g, tokens := h.g, h.g.Format.PageTokens
	p := hackEncodeParams{
		F: h.f, X: [2]Ptr{k, v}, Exact: exact, Coded: coded,
		ExactLayer: uint64(layer * g.ExactBytes()), CodedLayer: uint64(layer * g.CodedBytes()),
		Position: int32(position), Rows: int32(rows), Heads: int32(g.KVHeads),
	}
	p.F.Layer = int32(layer)
	pages := (position+rows-1)/tokens - position/tokens + 1
	return c.Launch(h.encode, Shape{Grid: [3]int{pages, g.KVHeads, 2}, Block: hackEncodeThreads, Shared: hackEncodeShared(g.HeadDim)}, s, paramBytes(&p))
}
