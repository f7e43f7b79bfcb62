package cuda

import (
	"fmt"

	"github.com/terse-llm/terse/quant"
)

// The kernels of src/select.cuh.
type (
	weighParams struct {
		Exact                              Ptr
		ExactLayer                         uint64
		Q, States, Sums                    Ptr
		Page, Position, Rows, Heads, Group int32
		Stride                             int32
		Scale                              float32
		More                               int32
	}
	chooseParams struct {
		Sums, Spread, Sets          Ptr
		Stride, Lo, Hi, Count, Most int32
		_                           int32
	}
	refineHalf struct {
		Scale, Zero, Top, Low, Set int32
		Rows                       int32
	}
	refineParams struct {
		Exact, Coded, Sets     Ptr
		ExactLayer, CodedLayer uint64
		Page, Pages, HeadBytes int32
		_                      int32
		Half                   [2]refineHalf
	}
)

const (
	weighThreads  = 128
	chooseThreads = 1024
	refineThreads = 128
	chooseShared  = 256*4 + 32*4 + 8 // Choose::Shared
)

// Selector finds a prompt's important tokens, one layer at a time, and gives them the
// second plane (docs/formats.md, "Important tokens").
type Selector struct {
	g                     *quant.Geometry
	group                 int
	weigh, choose, refine Function
	sums, spread          Ptr // [kv head][prompt token] float32
	sets                  Ptr // [kv head][page] uint64
}

// NewSelector makes a selector for prompts of up to context tokens; group is the
// number of query heads of a KV head.
func (c *Context) NewSelector(m Module, g *quant.Geometry, group, context int) (*Selector, error) {
	s := &Selector{g: g, group: group}
	for _, k := range []struct {
		name   string
		shared int
		dst    *Function
	}{
		{fmt.Sprintf("weigh_%d", g.HeadDim), weighShared, &s.weigh}, {"choose", chooseShared, &s.choose}, {fmt.Sprintf("refine_%d", g.HeadDim), 0, &s.refine},
	} {
		var err error
		if *k.dst, err = c.Function(m, k.name, k.shared); err != nil {
			return nil, err
		}
	}
	for _, b := range []struct {
		dst *Ptr
		n   int
	}{{&s.sums, 4 * context}, {&s.spread, 4 * context}, {&s.sets, 8 * (context/pageTokens + 1)}} {
		var err error
		if *b.dst, err = c.Alloc(b.n * g.KVHeads); err != nil {
			return nil, err
		}
	}
	return s, nil
}

const weighShared = weighThreads / 32 * pageTokens * 4

// CloseSelector gives a selector's memory back.
func (c *Context) CloseSelector(s *Selector) error {
	for _, p := range []Ptr{s.sums, s.spread, s.sets} {
		if err := c.Free(p); err != nil {
			return err
		}
	}
	return nil
}

// Sums is where the weights of a prompt's tokens in the layer at hand lie:
// [KV head][prompt token] float32, of which those of a [Watched]'s tokens are set.
func (s *Selector) Sums() Ptr { return s.sums }

// Watched is rows at the end of a prompt, in one layer, whose attention says which of
// its tokens matter.
type Watched struct {
	Layer          int
	Position, Rows int  // of the first, and how many
	Q, States      Ptr  // of the first row: its queries in the cache's basis, and what [Prefiller.Exact] gave
	Exact, Coded   Ptr  // the sequence's tables
	Lo, Hi         int  // tokens to choose among, whole pages that are there in both forms
	Prompt         int  // its tokens
	More           bool // sums of earlier rows are there, to be added to
}

// Weigh puts into the stream that sums come to have what the rows give to tokens
// [Lo, Hi). scale multiplies q·k.
func (c *Context) Weigh(sel *Selector, w Watched, scale float32, s Stream) error {
	if w.Lo >= w.Hi || w.Rows < 1 {
		return nil
	}
	g := sel.g
	p := weighParams{
		Exact: w.Exact, ExactLayer: uint64(w.Layer * g.ExactBytes()), Q: w.Q, States: w.States, Sums: sel.sums, Page: int32(w.Lo / pageTokens),
		Position: int32(w.Position), Rows: int32(w.Rows), Heads: int32(g.KVHeads), Group: int32(sel.group), Stride: int32(w.Prompt), Scale: scale * log2e,
	}
	if w.More {
		p.More = 1
	}
	return c.Launch(sel.weigh, Shape{Grid: [3]int{(w.Hi - w.Lo) / pageTokens, g.KVHeads, 1}, Block: weighThreads, Shared: weighShared, Early: true}, s, paramBytes(&p))
}

// Choose puts into the stream that of tokens [Lo, Hi) those that matter most by the
// sums, as quant.Format.ImportantTokens finds them, get the second plane.
func (c *Context) Choose(sel *Selector, w Watched, s Stream) error {
	n := w.Hi - w.Lo
	if n <= 0 {
		return nil
	}
	f := sel.g.Format
	p := chooseParams{
		Sums: sel.sums, Spread: sel.spread, Sets: sel.sets, Stride: int32(w.Prompt), Lo: int32(w.Lo), Hi: int32(w.Hi),
		Count: int32((n*f.Important + 99) / 100), Most: int32(f.MostImportant()),
	}
	if err := c.Launch(sel.choose, Shape{Grid: [3]int{sel.g.KVHeads, 1, 1}, Block: chooseThreads, Shared: chooseShared, Early: true}, s, paramBytes(&p)); err != nil {
		return err
	}
	g := sel.g.At(w.Layer)
	r := refineParams{
		Exact: w.Exact, Coded: w.Coded, Sets: sel.sets, ExactLayer: uint64(w.Layer * g.ExactBytes()), CodedLayer: uint64(sel.g.CodedStart(w.Layer)),
		Page: int32(w.Lo / pageTokens), Pages: int32(n / pageTokens), HeadBytes: int32(g.HeadBytes),
	}
	for half := range r.Half {
		if l := &g.HQ[half]; l.Refined {
			seg := &l.Segments[0]
			r.Half[half] = refineHalf{int32(seg.Scale), int32(seg.Zero), int32(seg.Top), int32(seg.Low), int32(l.Mask), int32(l.LowRows)}
		}
	}
	return c.Launch(sel.refine, Shape{Grid: [3]int{n / pageTokens, g.KVHeads, 2}, Block: refineThreads, Early: true}, s, paramBytes(&r))
}
