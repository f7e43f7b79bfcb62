package quant

import (
	"fmt"

	"github.com/terse-llm/terse/tensor"
)

// Geometry is a format laid out for a model's shape: where everything lies in
// the bytes of a page. It is immutable and shared.
type Geometry struct {
	Format  Format
	Layers  int
	KVHeads int
	HeadDim int

	// One layer of a coded page is [KV head][K, then V]. HeadBytes is one KV
	// head's share; the layouts' offsets count from its start. HQ is set for hq
	// formats, Hack for both hack layouts and kivi; index 0 is K, 1 is V. Group is
	// set for int8, int4 and, layer by layer, cachegen; NUQ for kvquant.
	HeadBytes int
	HQ        [2]HQHalf
	Hack      [2]HackHalf
	Group     GroupLayout
	NUQ       [2]NUQHalf
	// Tables are what kvquant codes with: of the geometry of a [Transform] that has a
	// calibration.
	Tables *NUQTables

	// Where layers are not laid out alike, what the above is of each of them; then
	// the above is not set here, so that nobody takes one layer's for another's.
	layers []*Geometry
	starts []int        // where a layer begins in a coded page, and last its size
	tables *levelTables // of a layer of cachegen: what its levels are range-coded with
}

// At is the geometry with the layout of one layer: g itself where all are alike.
func (g *Geometry) At(layer int) *Geometry {
	if g.layers == nil {
		return g
	}
	return g.layers[layer]
}

// Even reports whether all layers are laid out alike.
func (g *Geometry) Even() bool { return g.layers == nil }

// The halves of a page, as indices of HQ, Hack and NUQ and in EncodeArgs.Important.
const (
	HalfK = 0
	HalfV = 1
)

// maxHeadDim bounds the sums of 8-bit codes that 16 bits have to hold, and every
// model's heads are far below.
const maxHeadDim = 1024

// NewGeometry lays f out for a model's shape, refusing what cannot be laid out.
func NewGeometry(f Format, layers, kvHeads, headDim int) (*Geometry, error) {
	return NewCalibratedGeometry(f, nil, layers, kvHeads, headDim)
}

// NewCalibratedGeometry is NewGeometry for a model with a calibration (nil: with
// none), which may say how each layer is laid out.
func NewCalibratedGeometry(f Format, cal *Calibration, layers, kvHeads, headDim int) (*Geometry, error) {
	g := &Geometry{Format: f, Layers: layers, KVHeads: kvHeads, HeadDim: headDim}
	err := g.check()
	var plan []uint16
	if err == nil && f.K.Leading == Planned {
		plan, err = g.plan(cal)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot lay out KV format %s for %d layers, %d KV heads, head_dim %d: %w", f.Name, layers, kvHeads, headDim, err)
	}
	switch f.Family {
	case FamilyHQ:
		if f.K.Leading != Planned {
			g.layHQ()
			break
		}
		g.layEach(func(layer *Geometry, at int) {
			layer.Format.K = planned(int(plan[at]), headDim)
			layer.layHQ()
		})
	case FamilyHack, FamilyHackV2, FamilyKIVI:
		g.layHack()
	case FamilyGroup:
		g.layGroup(f.Bits, f.Bits)
	case FamilyCacheGen:
		g.layEach(func(layer *Geometry, at int) {
			k, v := cacheGenBits(at, layers)
			if f.Delta > 0 { // anchors want a byte
				layer.layGroup(8, 8)
				layer.Group.Delta = f.Delta
				layer.Group.Halves[HalfK].Most, layer.Group.Halves[HalfV].Most = levelsOf(k)/2, levelsOf(v)/2
			} else {
				layer.layGroup(k, v)
			}
			layer.unprofiled()
		})
	case FamilyKVQuant:
		g.layNUQ()
	}
	return g, nil
}

func (g *Geometry) layGroup(k, v int) {
	g.Group = NewGroupLayout(g.HeadDim, k, v)
	g.HeadBytes = g.Group.Bytes
}

// planned is the half of K of a layer whose plan has n leading channels.
func planned(n, headDim int) Half {
	switch n {
	case 0:
		return Half{}
	case headDim:
		return Half{Second: SecondAll}
	}
	return Half{Second: SecondShared, Leading: n}
}

// plan is the leading channels of every layer: those that the calibration says, or
// what it gives for the format's budget.
func (g *Geometry) plan(cal *Calibration) ([]uint16, error) {
	if cal == nil || cal.KPlan == nil || g.Format.Budget > 0 && cal.KHarm == nil {
		return nil, fmt.Errorf("it wants the layers' budgets, and there is no calibration that has them: run terse calibrate on this model")
	}
	if err := cal.fits(g); err != nil || g.Format.Budget == 0 {
		return cal.KPlan, err
	}
	return cal.Plan(g.Format)
}

// layEach lays out layers one by one.
func (g *Geometry) layEach(lay func(layer *Geometry, at int)) {
	size := 0
	for i := range g.Layers {
		layer := &Geometry{Format: g.Format, Layers: g.Layers, KVHeads: g.KVHeads, HeadDim: g.HeadDim}
		lay(layer, i)
		g.layers, g.starts = append(g.layers, layer), append(g.starts, size)
		size += layer.CodedBytes()
	}
	g.starts = append(g.starts, size)
}

func (g *Geometry) check() error {
	f := g.Format
	switch {
	case g.Layers < 1 || g.KVHeads < 1 || g.HeadDim < 1:
		return fmt.Errorf("all of them must be positive")
	case f.PageTokens < 1 || f.PageTokens%8 != 0:
		return fmt.Errorf("pages of %d tokens; use a format of ParseFormat", f.PageTokens)
	case !f.Coded():
		return nil
	case g.HeadDim%8 != 0 || g.HeadDim > maxHeadDim:
		return fmt.Errorf("coded formats want a head_dim that is a multiple of 8 and at most %d; use f16", maxHeadDim)
	}
	for _, h := range []Half{f.K, f.V} {
		if n := h.leading(g.HeadDim); (h.Second == SecondLeading || h.Second == SecondShared) && n >= g.HeadDim {
			return fmt.Errorf("%d leading channels with a second plane; use fewer than head_dim, or all", n)
		}
	}
	return nil
}

// ExactBytes is the size of one layer of an exact page: [head][K then V][token]
// [channel] of ExactType, head-major so that one head's half is contiguous.
func (g *Geometry) ExactBytes() int { return g.KVHeads * 2 * g.exactHalf() }

// ExactType is the element type of exact pages: float16, float32 for f32.
func (g *Geometry) ExactType() tensor.DType {
	if g.Format.Wide {
		return tensor.F32
	}
	return tensor.F16
}

// exactRow is the size of one token's K or V of one head.
func (g *Geometry) exactRow() int { return g.ExactType().RowBytes(g.HeadDim) }

func (g *Geometry) exactHalf() int { return g.Format.PageTokens * g.exactRow() }

// ExactK is head's K half of one layer of an exact page: [token][channel].
func (g *Geometry) ExactK(page []byte, head int) []byte {
	n := g.exactHalf()
	return page[2*head*n : (2*head+1)*n : (2*head+1)*n]
}

// ExactV is head's V half, laid out as K's.
func (g *Geometry) ExactV(page []byte, head int) []byte {
	n := g.exactHalf()
	return page[(2*head+1)*n : (2*head+2)*n : (2*head+2)*n]
}

// CodedBytes is the size of one layer of a coded page; 0 for f16. Where layers are
// not alike it is asked of At.
func (g *Geometry) CodedBytes() int {
	if g.layers != nil {
		panic("BUG: the size of a layer, of layers that are not alike")
	}
	return g.KVHeads * g.HeadBytes
}

// CodedPage is the size of a coded page, all layers.
func (g *Geometry) CodedPage() int {
	if g.layers == nil {
		return g.Layers * g.CodedBytes()
	}
	return g.starts[g.Layers]
}

// ExactPage is the size of an exact page, all layers.
func (g *Geometry) ExactPage() int { return g.Layers * g.ExactBytes() }

// CodedStart is the byte where a layer begins in a coded page; Layers is the page's end.
func (g *Geometry) CodedStart(layer int) int {
	if g.layers == nil {
		return layer * g.CodedBytes()
	}
	return g.starts[layer]
}

// CodedHead is head's share of one layer of a coded page; the offsets of HQ and
// Hack count from its start.
func (g *Geometry) CodedHead(page []byte, head int) []byte {
	n := g.HeadBytes
	return page[head*n : (head+1)*n : (head+1)*n]
}

// Span is a run of bytes of one layer of a page.
type Span struct{ Off, Len int }

// ExactSpans are the bytes of tokens [lo, hi) of one layer of an exact page, of
// the halves asked for: what the wire carries of a partly needed page.
func (g *Geometry) ExactSpans(lo, hi int, k, v bool) []Span {
	half, tok := g.exactHalf(), g.exactRow()
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
	switch {
	case p.Planes == TopPlanes:
		return g.TopSpans()
	case p.Planes == SecondPlane:
		return nil // what there is of it: SecondSpans
	case p.Coded:
		return []Span{{0, g.CodedBytes()}}
	}
	return g.ExactSpans(p.Lo, p.Hi, p.K, p.V)
}
