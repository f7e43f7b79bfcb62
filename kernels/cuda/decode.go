package cuda

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/terse-llm/terse/quant"
)

// decodeStages is the number of pages in a warp's ring (src/attend.cuh, kStages).
const decodeStages = 2

// pageTokens is what the attention kernels take for a page.
const pageTokens = 64

// attendParams is a decode kernel's parameter (src/page.cuh, AttendParams).
type attendParams struct {
	Out                  Ptr
	States, Values       Ptr
	Arrived              Ptr
	Exact                Ptr
	ExactLayer           uint64
	Coded                Ptr
	CodedLayer           uint64
	Items                Ptr
	Q                    Ptr
	Even                 even
	Pages                int32
	Heads, Group         uint16
	Scale                float32
	LowRows              [2]int32
	Units                int32
	ExactHi, Sinks, Skip int32
	Refined, _           int32
}

// Decoder attends for single queries at the ends of sequences (one decode step)
// on pages of one format with head_dim 64 or 128: coded pages by the int8 tensor
// cores, exact ones by the float16 ones, all in one launch.
type Decoder struct {
	g       *quant.Geometry
	group   int // query heads of a KV head
	queries int // of a block
	warps   int
	f       Function
}

// NewDecoder picks the kernel for a geometry; group is the number of query heads
// of a KV head.
func (c *Context) NewDecoder(m Module, g *quant.Geometry, group int) (*Decoder, error) {
	d := &Decoder{g: g, group: group, queries: 8}
	if group <= 4 {
		d.queries = 4
	}
	name, err := d.kernel()
	if err != nil {
		return nil, err
	}
	most := 0
	for layer := range g.Layers {
		most = max(most, d.shared(layer))
	}
	if d.f, err = c.Function(m, name, most); err != nil {
		return nil, err
	}
	return d, nil
}

// shared is the shared memory of a block in one layer.
func (d *Decoder) shared(layer int) int {
	g := d.g
	ring := decodeStages * g.At(layer).HeadBytes
	if !g.Format.Coded() {
		ring = exactStages(g.HeadDim) * exactUnit * (4*g.HeadDim + 80) // of ExactRing::kStage
	}
	return d.warps*max(ring, d.queries*g.HeadDim*4+320) + // of each warp: its ring, then Merge::kRing
		d.queries*(64*querySets(g)+12) + // QueryCodes::Shared
		d.warps*d.queries*8 + itemBytes // Merge::Shared
}

// exactStages is ExactRing's stages.
func exactStages(headDim int) int {
	if headDim == 64 {
		return 4
	}
	return 3
}

// runs is Runs::kRuns: a slot has values for so many times 64 channels of queries,
// as many times four states, and as many counters.
func (d *Decoder) runs() int { return d.queries * d.g.HeadDim / 64 }

// querySets is QueryCodes::kSets: sets of four words of 16 channels, leading ones
// apart.
func querySets(g *quant.Geometry) int {
	words := g.HeadDim / 16
	if k := g.Format.K; k.Second == quant.SecondLeading {
		return (words-leading(g)/16+3)/4 + 1
	}
	return (words + 3) / 4
}

// leading is the number of K's channels that have the second plane, where leading
// ones have: a format may say it as a share of a head.
func leading(g *quant.Geometry) int { return g.HQ[quant.HalfK].Segments[0].Hi }

// someTokens reports whether some tokens only have a second plane in a half.
func someTokens(h quant.Half) bool {
	return h.Second == quant.SecondTokens || h.Second == quant.SecondImportant
}

// lowRows is the rows of such planes as they are stored in one layer, or what the
// second plane of leading channels as planned makes of whole rows: src/page.cuh,
// AttendParams.
func lowRows(g *quant.Geometry, layer int) (rows [2]int32) {
	f := g.Format
	for half, h := range []quant.Half{f.K, f.V} {
		if someTokens(h) {
			rows[half] = int32(h.Tokens)
		}
	}
	if planned(f) {
		k := &g.At(layer).HQ[quant.HalfK]
		if k.LowRows > 0 {
			rows[quant.HalfK] = int32(pageTokens * k.Segments[0].Hi / g.HeadDim)
		}
	}
	return rows
}

// planned reports whether the kernels for a format take K's leading channels, which
// have the others' scale, by number: none, some or all.
func planned(f quant.Format) bool {
	return f.K.Second == quant.SecondShared ||
		f.Symmetric && someTokens(f.V) && (f.K.Second == quant.SecondNone || f.K.Second == quant.SecondAll)
}

// refined says of which halves the second planes of some tokens refine codes of two
// bits: src/page.cuh, AttendParams.
func refined(f quant.Format) (bits int32) {
	for half, h := range []quant.Half{f.K, f.V} {
		if h.Second == quant.SecondImportant {
			bits |= 1 << half
		}
	}
	return bits
}

// kernel is the name of the kernel for d's format; it sets the warps of a block
// (src/kernels.cu).
func (d *Decoder) kernel() (string, error) {
	base, err := attentionBase(d.g)
	if err != nil {
		return "", err
	}
	is := func(prefix string) bool { return strings.HasPrefix(base, prefix) }
	switch wide := d.g.HeadDim == 128; {
	case is("f16"), wide && (is("hq3") || is("hq4")): // as many pages as memory answers to at once
		d.warps = 8
	default:
		d.warps = 12
	}
	return fmt.Sprintf("decode_%s_%d_%d", base, d.g.HeadDim, d.queries), nil
}

// attentionBase is the part of an attention kernel's name that says the format,
// "hq2_sym", or why there is none.
func attentionBase(g *quant.Geometry) (string, error) {
	f := g.Format
	if g.HeadDim != 64 && g.HeadDim != 128 || f.PageTokens != pageTokens || f.Wide {
		return "", fmt.Errorf("cannot attend on %s with head_dim %d on the GPU: the kernels are for float16 and head_dim 64 or 128", f.Name, g.HeadDim)
	}
	if !f.Coded() {
		return "f16", nil
	}
	symmetry := "asym"
	if f.Symmetric {
		symmetry = "sym"
	}
	base := planesBase(g)
	if base == "" {
		return "", fmt.Errorf("cannot attend on KV format %s with head_dim %d on the GPU: there is no kernel for it; choose f16, hq2, hq2+, hq2b, hq3, hq4 or hq2,k2=lead:32, also with important", f.Name, g.HeadDim)
	}
	return base + "_" + symmetry, nil
}

// planesBase is what of it says which planes there are; empty where there is no
// kernel for them.
func planesBase(g *quant.Geometry) string {
	f := g.Format
	k, v := f.K.Second, f.V.Second
	keys, values := "", ""
	switch {
	case f.Family != quant.FamilyHQ:
		return ""
	case v == quant.SecondAll && k == quant.SecondAll:
		return "hq4"
	case someTokens(f.V):
		values = "some"
	case v != quant.SecondNone:
		return ""
	}
	switch {
	case planned(f):
		keys = "plan"
	case k == quant.SecondNone && values == "":
		keys = "hq2"
	case k == quant.SecondAll:
		keys = "hq3"
	case someTokens(f.K):
		keys = "some"
	case k == quant.SecondLeading && (leading(g) == 32 && (values == "" || g.HeadDim == 128) || leading(g) == 16 && g.HeadDim == 64) && (values == "" || f.Symmetric):
		keys = fmt.Sprintf("lead%d", leading(g))
	default:
		return ""
	}
	return keys + values
}

// Plan plans a step over sequences of the given lengths for this kernel.
func (d *Decoder) Plan(info Info, lengths []int) *Plan { return d.PlanFrom(info, lengths, nil) }

// PlanFrom is Plan with PlanOptions.Floors.
func (d *Decoder) PlanFrom(info Info, lengths, floors []int) *Plan {
	return NewPlan(d.g.Format, lengths, d.g.KVHeads, d.group, d.queries, PlanOptions{Blocks: info.SMs, Warps: d.warps, Floors: floors})
}

// Step is a plan on the device with the memory it works in.
type Step struct {
	d     *Decoder
	p     attendParams
	grid  [3]int
	owned []Ptr
}

// Prepare uploads a plan and takes its memory. One step serves all layers.
func (c *Context) Prepare(d *Decoder, plan *Plan) (*Step, error) {
	s := &Step{d: d, grid: [3]int{plan.blocks, 1, 1}}
	if plan.even.Parts > 0 {
		e := plan.even
		s.p.Even, s.p.Units, s.p.ExactHi, s.p.Sinks, s.p.Skip = e.even, e.units, e.exactHi, e.sinks, e.skip
		s.grid = [3]int{int(e.Parts), e.heads, plan.blocks / int(e.Parts) / e.heads}
	}
	runs := plan.slots * d.runs()
	for _, part := range []struct {
		dst  *Ptr
		n    int
		data []byte
	}{
		{&s.p.Items, 0, bytesOf(plan.items)},
		{&s.p.States, runs * 4 * 8, nil},
		{&s.p.Values, runs * 64 * 4, nil},
		{&s.p.Arrived, runs * 4, nil},
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
	if err := c.FillAsync(s.p.Arrived, 0, runs*4, 0); err != nil {
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
// [KV head][group][head_dim] float32 in the cache's basis. scale multiplies q·k.
func (c *Context) Attend(s *Step, t Tables, layer int, q, out Ptr, scale float32, stream Stream) error {
	g := s.d.g
	p := s.p
	p.Coded, p.Exact, p.Pages = t.Coded, t.Exact, int32(t.Pages)
	p.CodedLayer, p.ExactLayer = uint64(g.CodedStart(layer)), uint64(layer*g.ExactBytes())
	p.Q, p.Out, p.Heads, p.Group = q, out, uint16(g.KVHeads), uint16(s.d.group)
	p.Scale, p.LowRows, p.Refined = scale*log2e, lowRows(g, layer), refined(g.Format)
	if g.Format.Recent > 0 { // a page that becomes full is read exactly first
		p.Even.Settled = 1
	}
	return c.Launch(s.d.f, Shape{Grid: s.grid, Block: 32 * s.d.warps, Shared: s.d.shared(layer), Early: true}, stream, paramBytes(&p))
}

// bytesOf is a slice's memory.
func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}
