package cuda

import (
	"fmt"
	"unsafe"

	"github.com/terse-llm/terse/quant"
)

// attendParams is a decode kernel's parameter (src/page.cuh, AttendParams).
type attendParams struct {
	Coded, Exact           Ptr
	CodedLayer, ExactLayer uint64
	Q, Out                 Ptr
	Items                  Ptr
	States, Values         Ptr
	Arrived                Ptr
	Pages, Heads, Group    int32
	Scale                  float32
}

// What the attention kernels are for.
const (
	fastTokens = 64
	fastDim    = 128
)

// Decoder attends for single queries at the ends of sequences (one decode step)
// on pages of one format with head_dim 128: coded pages by the int8 tensor
// cores, exact ones by the float16 ones, all in one launch.
type Decoder struct {
	g       *quant.Geometry
	group   int // query heads of a KV head
	queries int // of a block
	warps   int
	shared  int
	f       Function
}

// NewDecoder picks the kernel for a geometry; group is the number of query heads
// of a KV head.
func (c *Context) NewDecoder(m Module, g *quant.Geometry, group int) (*Decoder, error) {
	d := &Decoder{g: g, group: group, queries: 8}
	if group <= 4 {
		d.queries = 4
	}
	name, ring, err := d.kernel()
	if err != nil {
		return nil, err
	}
	share := max(ring, d.queries*fastDim*4)
	sets := 2
	if g.Format.K.Second == quant.SecondLeading {
		sets = 3
	}
	d.shared = d.warps*share + d.queries*(64*sets+12) + // QueryCodes::Shared
		d.warps*d.queries*12 + d.queries*8 + 8 // Merge::Shared
	if d.f, err = c.Function(m, name, d.shared); err != nil {
		return nil, err
	}
	return d, nil
}

// kernel is the name of the kernel for d's format (src/kernels.cu) and the bytes
// of a warp's ring of pages.
func (d *Decoder) kernel() (name string, ring int, err error) {
	f := d.g.Format
	if d.g.HeadDim != fastDim || f.PageTokens != fastTokens || f.Wide {
		return "", 0, fmt.Errorf("cannot decode %s with head_dim %d on the GPU: the kernels are for head_dim %d and float16", f.Name, d.g.HeadDim, fastDim)
	}
	if !f.Coded() {
		d.warps = 16
		return fmt.Sprintf("decode_f16_%d", d.queries), 0, nil
	}
	symmetry, stages := "asym", 0
	if f.Symmetric {
		symmetry = "sym"
	}
	var base string
	wide := d.queries == 8
	switch k, v := f.K, f.V; {
	case f.Family != quant.FamilyHQ:
	case k.Second == quant.SecondNone && v.Second == quant.SecondNone:
		base, stages, d.warps = "hq2", 3, 16
		if wide {
			d.warps = 12
		}
	case k.Second == quant.SecondAll && v.Second == quant.SecondNone:
		base, stages, d.warps = "hq3", 2, 16
		if wide {
			d.warps = 12
		}
	case k.Second == quant.SecondAll && v.Second == quant.SecondAll:
		base, stages, d.warps = "hq4", 2, 12
	case k.Second == quant.SecondLeading && k.Leading == 32 && v.Second == quant.SecondNone:
		base, stages, d.warps = "lead", 3, 12
	}
	if base == "" {
		return "", 0, fmt.Errorf("cannot decode KV format %s on the GPU: there is no kernel for it; choose hq2, hq3, hq4 or hq2,k2=lead:32", f.Name)
	}
	return fmt.Sprintf("decode_%s_%s_%d", base, symmetry, d.queries), stages * d.g.HeadBytes, nil
}

// Plan plans a step over sequences of the given lengths for this kernel.
func (d *Decoder) Plan(info Info, lengths []int) *Plan {
	return NewPlan(d.g.Format, lengths, d.g.KVHeads, d.group, d.queries, PlanOptions{Blocks: info.SMs, Warps: d.warps})
}

// Step is a plan on the device with the memory it works in.
type Step struct {
	d      *Decoder
	p      attendParams
	blocks int
	owned  []Ptr
}

// Prepare uploads a plan and takes its memory. One step serves all layers.
func (c *Context) Prepare(d *Decoder, plan *Plan) (*Step, error) {
	s := &Step{d: d, blocks: plan.blocks}
	states := plan.slots * d.queries
	for _, part := range []struct {
		dst  *Ptr
		n    int
		data []byte
	}{
		{&s.p.Items, 0, bytesOf(plan.items)},
		{&s.p.States, states * 8, nil},
		{&s.p.Values, states * fastDim * 4, nil},
		{&s.p.Arrived, plan.slots * 4, nil},
	} {
		var err error
		if *part.dst, err = c.Alloc(part.n + len(part.data)); err != nil {
			return nil, err
		}
		s.owned = append(s.owned, *part.dst)
		if err := c.Upload(*part.dst, part.data); err != nil {
			return nil, err
		}
	}
	if err := c.FillAsync(s.p.Arrived, 0, plan.slots*4, 0); err != nil {
		return nil, err
	}
	return s, c.Synchronize(0)
}

// CloseStep gives a step's memory back.
func (c *Context) CloseStep(s *Step) error {
	for _, p := range s.owned {
		if err := c.Free(p); err != nil {
			return err
		}
	}
	return nil
}

// Tables are the addresses of every sequence's pages on the device,
// [sequence][Pages]; entries of pages that are not read may be anything.
type Tables struct {
	Coded, Exact Ptr
	Pages        int
}

// Attend puts one layer's attention into the stream: q and out are [sequence]
// [KV head][group][128] float32 in the cache's basis. scale multiplies q·k.
func (c *Context) Attend(s *Step, t Tables, layer int, q, out Ptr, scale float32, stream Stream) error {
	g := s.d.g
	p := s.p
	p.Coded, p.Exact, p.Pages = t.Coded, t.Exact, int32(t.Pages)
	p.CodedLayer, p.ExactLayer = uint64(layer*g.CodedBytes()), uint64(layer*g.ExactBytes())
	p.Q, p.Out, p.Heads, p.Group = q, out, int32(g.KVHeads), int32(s.d.group)
	p.Scale = scale * log2e
	return c.Launch(s.d.f, Shape{Grid: [3]int{s.blocks, 1, 1}, Block: 32 * s.d.warps, Shared: s.d.shared}, stream, paramBytes(&p))
}

// bytesOf is a slice's memory.
func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}
