package cuda

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/terse-llm/terse/quant"
)

// encodeSegment, encodeHalf and encodeParams are the encoding kernel's parameter
// (src/encode.cuh).
type encodeSegment struct {
	Lo, Hi, Width         int32
	Scale, Zero, Top, Low int32
	Shared                int32
}

type encodeHalf struct {
	X, Shift, Signs, Map Ptr
	Segments             int32
	Set, Rows            int32
	RowsBytes            int32
	Segment              [2]encodeSegment
}

type encodeParams struct {
	Half                   [2]encodeHalf
	Exact, Coded           Ptr
	ExactLayer, CodedLayer uint64
	Position, Rows         int32
	Heads, HeadBytes       int32
	Norm                   float32
	Clips                  int32
	Positions              Ptr
	Pages, KeepNorm        int32
}

// encodeThreads and the shared memory of Encode<D> are the kernel's.
const encodeThreads = 64

func encodeShared(dim int) int { return 64 * (dim + 8) * 2 }

// mapKeysShared is the shared memory of MapKeys<D> (src/map.cuh), of D threads.
func mapKeysShared(dim int) int { return (64*(dim+4) + 3*16*dim) * 4 }

// Encoder takes new tokens' K and V into the cache: basis, float16 page, and the
// codes of pages that become full, in one launch, or two where K has a matrix and
// rows are many. The bytes are those of quant.Transform, PutExact and Encode, with
// products fused where K has a matrix. Where some tokens only may have a second
// plane, none has: a [Selector] gives it to the important ones.
type Encoder struct {
	g          *quant.Geometry
	f, mapKeys Function
	shared     int
	base       []encodeParams // of each layer
	signs      [2]Ptr         // [dim] of K's and V's rotation; 0: none
	shifts     [2]Ptr         // [layer][head][dim]; 0: none
	maps       [2]Ptr         // [layer][head][dim in][dim out]; 0: none
	owned      []Ptr
}

// NewEncoder puts a geometry's basis on the device.
func (c *Context) NewEncoder(m Module, g *quant.Geometry, tf *quant.Transform) (*Encoder, error) {
	e := &Encoder{g: g}
	err := e.refuse()
	if err != nil {
		return nil, err
	}
	for layer := range g.Layers {
		e.base = append(e.base, layoutOf(g, layer))
	}
	for half := range 2 {
		var shifts, maps, signs []float32
		for layer := range g.Layers {
			b := basisOf(tf, g, layer, half)
			shifts, maps, signs = append(shifts, b.shift...), append(maps, b.maps...), b.signs
		}
		if e.maps[half], err = e.put(c, maps); err != nil {
			return nil, err
		}
		if e.shifts[half], err = e.put(c, shifts); err != nil {
			return nil, err
		}
		if e.signs[half], err = e.put(c, signs); err != nil {
			return nil, err
		}
	}
	e.shared = encodeShared(g.HeadDim)
	if e.f, err = c.Function(m, fmt.Sprintf("encode_%d", g.HeadDim), e.shared); err != nil {
		return nil, err
	}
	e.mapKeys, err = c.Function(m, fmt.Sprintf("map_keys_%d", g.HeadDim), mapKeysShared(g.HeadDim))
	return e, err
}

func (e *Encoder) put(c *Context, x []float32) (Ptr, error) {
	if len(x) == 0 {
		return 0, nil
	}
	p, err := c.Alloc(4 * len(x))
	if err != nil {
		return 0, err
	}
	e.owned = append(e.owned, p)
	return p, c.Upload(p, bytesOf(x))
}

// refuse refuses what the kernel cannot code.
func (e *Encoder) refuse() error {
	f, d := e.g.Format, e.g.HeadDim
	if d != 64 && d != 128 || f.PageTokens != 64 || f.Wide || f.Coded() && f.Family != quant.FamilyHQ {
		return fmt.Errorf("cannot code %s with head_dim %d on the GPU: the kernel is for hq formats and f16, head_dim 64 or 128", f.Name, d)
	}
	return nil
}

// layoutOf is where a layer's codes go.
func layoutOf(all *quant.Geometry, layer int) (p encodeParams) {
	g := all.At(layer)
	f := g.Format
	p.Heads, p.HeadBytes, p.CodedLayer = int32(g.KVHeads), int32(g.HeadBytes), uint64(all.CodedStart(layer))
	p.Norm, p.Clips = float32(1/math.Sqrt(float64(g.HeadDim))), 1
	if f.Clip {
		p.Clips = 5
	}
	if f.Norm {
		p.KeepNorm = 1
	}
	for half := range 2 {
		l := &g.HQ[half]
		p.Half[half].Segments, p.Half[half].Set = int32(l.NSegments), int32(l.Mask)
		for i, s := range l.Segments[:l.NSegments] {
			if l.Mask >= 0 {
				p.Half[half].Rows, p.Half[half].RowsBytes = int32(s.Low), int32(l.LowRows*s.Width/4)
				s.Low = -1
			}
			to := &p.Half[half].Segment[i]
			*to = encodeSegment{Lo: int32(s.Lo), Hi: int32(s.Hi), Width: int32(s.Width), Scale: int32(s.Scale), Zero: int32(s.Zero), Top: int32(s.Top), Low: int32(s.Low)}
			if s.Shared {
				to.Shared = 1
			}
		}
	}
	return p
}

// CloseEncoder gives an encoder's memory back.
func (c *Context) CloseEncoder(e *Encoder) error {
	for _, p := range e.owned {
		if err := c.Free(p); err != nil {
			return err
		}
	}
	return nil
}

// Append puts rows tokens from position on of one layer into a sequence's pages:
// k and v are [row][KV head][dim] float32 after RoPE; exact and coded are the
// sequence's tables of page addresses (an entry of coded may be 0: no codes of
// that page).
func (c *Context) Append(e *Encoder, layer, position, rows int, k, v, exact, coded Ptr, s Stream) error {
	if rows < 1 {
		return nil
	}
	g, p := e.g, e.params(layer, k, v, exact, coded)
	p.Position, p.Rows = int32(position), int32(rows)
	pages := (position+rows-1)/64 - position/64 + 1
	if p.Half[quant.HalfK].Map != 0 {
		err := c.Launch(e.mapKeys, Shape{Grid: [3]int{pages, g.KVHeads, 1}, Block: g.HeadDim, Shared: mapKeysShared(g.HeadDim), Early: true}, s, paramBytes(&p))
		if err != nil {
			return err
		}
		p.Half[quant.HalfK].X = 0 // they are in their pages
	}
	return c.Launch(e.f, Shape{Grid: [3]int{pages, g.KVHeads, 2}, Block: encodeThreads, Shared: e.shared, Early: true}, s, paramBytes(&p))
}

// AppendEach puts one token of each of some sequences into their pages: of
// sequence i, at positions[i] (int32; negative: none), row i of k and v. The
// tables have a row a sequence.
func (c *Context) AppendEach(e *Encoder, layer, sequences int, positions, k, v Ptr, t Tables, s Stream) error {
	if sequences < 1 {
		return nil
	}
	p := e.params(layer, k, v, t.Exact, t.Coded)
	p.Positions, p.Pages, p.Rows = positions, int32(t.Pages), 1
	return c.Launch(e.f, Shape{Grid: [3]int{1, e.g.KVHeads, 2 * sequences}, Block: encodeThreads, Shared: e.shared, Early: true}, s, paramBytes(&p))
}

// Recode codes a full page of a sequence, in one layer, from its exact form.
func (c *Context) Recode(e *Encoder, layer, page int, exact, coded Ptr, s Stream) error {
	p := e.params(layer, 0, 0, exact, coded)
	p.Position = int32(page * e.g.Format.PageTokens)
	return c.Launch(e.f, Shape{Grid: [3]int{1, e.g.KVHeads, 2}, Block: encodeThreads, Shared: e.shared, Early: true}, s, paramBytes(&p))
}

// params are a launch's for one layer.
func (e *Encoder) params(layer int, k, v, exact, coded Ptr) encodeParams {
	g, p := e.g, e.base[layer]
	for half, x := range []Ptr{k, v} {
		p.Half[half].X, p.Half[half].Signs = x, e.signs[half]
		if e.shifts[half] != 0 {
			p.Half[half].Shift = e.shifts[half] + Ptr(4*layer*g.KVHeads*g.HeadDim)
		}
		if e.maps[half] != 0 {
			p.Half[half].Map = e.maps[half] + Ptr(4*layer*g.KVHeads*g.HeadDim*g.HeadDim)
		}
	}
	p.Exact, p.Coded = exact, coded
	p.ExactLayer = uint64(layer * g.ExactBytes())
	return p
}

// basis is what a transform does to one half of one layer: it adds shift, then
// flips signs and multiplies with the Hadamard matrix, or multiplies with matrices of
// its own.
type basis struct {
	shift, signs, maps []float32
}

// basisOf watches a transform at work.
func basisOf(tf *quant.Transform, g *quant.Geometry, layer, half int) *basis {
	b := new(basis)
	x := make([]float32, g.KVHeads*g.HeadDim)
	if half == quant.HalfK {
		tf.Keys(b, layer, x)
	} else {
		tf.Values(b, layer, x)
	}
	return b
}

// Add is quant.Rotator's.
func (b *basis) Add(_, y []float32) { b.shift = y }

// Map is quant.Rotator's.
func (b *basis) Map(_ []float32, _, _ int, m []float32) { b.maps = m }

// Rotate is quant.Rotator's.
func (b *basis) Rotate(_ []float32, r *quant.Rotation, _ bool) {
	if len(r.Blocks) != 1 || bits.OnesCount(uint(r.Blocks[0])) != 1 {
		panic("BUG: a head_dim of 64 or 128 rotates as one block")
	}
	b.signs = r.Signs
}
