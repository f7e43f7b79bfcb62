package cuda

import (
	"fmt"
	"math"

	"github.com/terse-llm/terse/quant"
)

// The kernels between a layer's products and its attention (src/step.cuh).
type (
	turnParams struct {
		X, Bias, QNorm, KNorm                    Ptr
		Cos, Sin, Positions, Signs, Map          Ptr
		Q, K, V                                  Ptr
		Rows, Heads, KVHeads, Pairs, Interleaved int32
		Eps, Scale                               float32
		Each                                     int32
	}
	enterParams struct {
		Turn   turnParams
		Encode encodeParams
	}
	mapParams struct {
		Q, Map             Ptr
		Rows, Heads, Group int32
		_                  int32
	}
	leaveParams struct {
		X, Signs, Mean, Out    Ptr
		N, Heads, Group, Brain int32
		Scale                  float32
		_                      int32
	}
	biasParams struct {
		X, Bias Ptr
		Dim, N  int32
	}
)

// turnThreads are of a block of turn and leave: a warp for each head of a row, or for
// some where rows are many.
const turnThreads = 256

// Turner takes queries, keys and values from their product to what attention and
// the cache want, and attention's outputs to what the next product wants.
type Turner struct {
	g                  *quant.Geometry
	heads              int
	turn, leave, bias  Function
	enter, mapQueries  Function
	mapBlocks          int // most of a KV head's queries: two a multiprocessor
	brain              int32
	querySigns, vSigns Ptr
	means              Ptr // of V, [layer][kv head][dim]; 0: none
	queryMaps          Ptr // [layer][kv head][dim in][dim out]; 0: none
	owned              []Ptr
}

// NewTurner puts a geometry's basis on the device; heads are of queries, products
// is F16 or BF16.
func (c *Context) NewTurner(m Module, g *quant.Geometry, tf *quant.Transform, heads int, products DType) (*Turner, error) {
	if g.HeadDim != 64 && g.HeadDim != 128 {
		return nil, fmt.Errorf("cannot turn heads of %d on the GPU: the kernels are for head_dim 64 and 128", g.HeadDim)
	}
	t := &Turner{g: g, heads: heads, mapBlocks: max(2*c.info.SMs/g.KVHeads, 1)}
	if products == BF16 {
		t.brain = 1
	}
	for _, k := range []struct {
		name   string
		shared int
		dst    *Function
	}{
		{fmt.Sprintf("turn_%d", g.HeadDim), turnShared(g.HeadDim), &t.turn}, {fmt.Sprintf("leave_%d", g.HeadDim), 0, &t.leave}, {"add_bias", 0, &t.bias},
		{fmt.Sprintf("enter_%d", g.HeadDim), encodeShared(g.HeadDim), &t.enter},
		{fmt.Sprintf("map_queries_%d", g.HeadDim), mapQueriesShared(g.HeadDim), &t.mapQueries},
	} {
		var err error
		if *k.dst, err = c.Function(m, k.name, k.shared); err != nil {
			return nil, err
		}
	}
	var means, signs, maps []float32
	for layer := range g.Layers {
		b := basisOf(tf, g, layer, quant.HalfV)
		for _, shift := range b.shift { // what goes in must come out
			means = append(means, -shift)
		}
		signs = b.signs
		q := new(basis)
		tf.Queries(q, layer, make([]float32, g.KVHeads*g.HeadDim), g.KVHeads)
		maps = append(maps, q.maps...)
	}
	var err error
	if t.queryMaps, err = t.put(c, maps); err != nil {
		return nil, err
	}
	if t.means, err = t.put(c, means); err != nil {
		return nil, err
	}
	if t.vSigns, err = t.put(c, signs); err != nil {
		return nil, err
	}
	t.querySigns, err = t.put(c, basisOf(tf, g, 0, quant.HalfK).signs)
	return t, err
}

func turnShared(dim int) int { return turnThreads / 32 * dim * 4 }

func (t *Turner) put(c *Context, x []float32) (Ptr, error) {
	if len(x) == 0 {
		return 0, nil
	}
	p, err := c.Alloc(4 * len(x))
	if err != nil {
		return 0, err
	}
	t.owned = append(t.owned, p)
	return p, c.Upload(p, bytesOf(x))
}

// CloseTurner gives a turner's memory back.
func (c *Context) CloseTurner(t *Turner) error {
	for _, p := range t.owned {
		if err := c.Free(p); err != nil {
			return err
		}
	}
	return nil
}

// Turn is what a turn of some rows reads and writes. Addresses of what a model
// does not have are 0.
type Turn struct {
	Layer        int
	X            Ptr // [row][heads + 2·kv heads][dim] float32: queries, keys, values
	Bias         Ptr // [heads + 2·kv heads][dim] float32
	QNorm, KNorm Ptr // [dim] float32, of QK-norm
	Eps          float32
	Cos, Sin     Ptr // [position][Pairs] float32
	Positions    Ptr // [row] int32; negative for rows of padding
	Pairs        int
	Interleaved  bool // kernels.Angles has what it means
	Q, K, V      Ptr  // [row][heads or kv heads][dim] float32
}

// params are a turn's.
func (t *Turner) params(rows int, a Turn) turnParams {
	p := turnParams{
		X: a.X, Bias: a.Bias, QNorm: a.QNorm, KNorm: a.KNorm, Cos: a.Cos, Sin: a.Sin, Positions: a.Positions, Signs: t.querySigns,
		Q: a.Q, K: a.K, V: a.V, Rows: int32(rows), Heads: int32(t.heads), KVHeads: int32(t.g.KVHeads), Pairs: int32(a.Pairs),
		Eps: a.Eps, Scale: t.scale(), Each: 1,
	}
	if a.Interleaved {
		p.Interleaved = 1
	}
	if t.queryMaps != 0 {
		p.Map = t.queryMaps + Ptr(4*a.Layer*t.g.KVHeads*t.g.HeadDim*t.g.HeadDim)
	}
	return p
}

// Turn puts the bias, norm and rotary embedding of rows into the stream. Queries
// leave in the cache's basis, keys and values as [Context.Append] wants them.
func (c *Context) Turn(t *Turner, rows int, a Turn, s Stream) error {
	p := t.params(rows, a)
	m := mapParams{Q: p.Q, Map: p.Map, Rows: p.Rows, Heads: p.Heads, Group: p.Heads / p.KVHeads}
	if rows >= manyRows {
		p.Each, p.Map = manyHeads, 0
	}
	err := c.launchTurn(t, &p, s)
	if err != nil || rows < manyRows || m.Map == 0 {
		return err
	}
	blocks := min((rows*int(m.Group)+mapVectors-1)/mapVectors, t.mapBlocks)
	return c.Launch(t.mapQueries, Shape{Grid: [3]int{blocks, t.g.KVHeads, 1}, Block: mapThreads, Shared: mapQueriesShared(t.g.HeadDim), Early: true}, s, paramBytes(&m))
}

// launchTurn launches what turns heads, and few rows' queries into the basis.
func (c *Context) launchTurn(t *Turner, p *turnParams, s Stream) error {
	spans := (p.Heads + 2*p.KVHeads + p.Each - 1) / p.Each
	return c.Launch(t.turn, warpsFor(int(p.Rows*spans), turnShared(t.g.HeadDim)), s, paramBytes(p))
}

// manyHeads are of a row that a warp turns, one after another, where rows are many: what
// is the row's is looked up once for them.
const manyHeads = 8

// manyRows are so many that their queries are multiplied with the basis's matrices in
// a launch of their own, on tensor cores: they differ from those of fewer by some
// millionths, and by nothing from those of other numbers of many rows.
const manyRows = 32

// mapThreads and mapVectors, sixteen a warp, are of a block of map_queries, whose shared
// memory has a matrix in two parts of 16 bits.
const (
	mapThreads = 256
	mapVectors = mapThreads / 32 * 16
)

func mapQueriesShared(dim int) int { return dim * dim * 4 }

// Enter is Turn and then AppendEach for single rows, in one launch: row i goes into
// sequence i's pages.
func (c *Context) Enter(t *Turner, e *Encoder, layer, rows int, a Turn, tables Tables, s Stream) error {
	p := enterParams{Turn: t.params(rows, a), Encode: e.params(layer, a.K, a.V, tables.Exact, tables.Coded)}
	p.Encode.Positions, p.Encode.Pages, p.Encode.Rows = a.Positions, int32(tables.Pages), 1
	const perBlock = encodeThreads / 32
	queries := (t.heads + 2*perBlock - 1) / (2 * perBlock)
	return c.Launch(t.enter, Shape{Grid: [3]int{1, t.g.KVHeads + queries, 2 * rows}, Block: encodeThreads, Shared: encodeShared(t.g.HeadDim), Early: true}, s, paramBytes(&p))
}

// Leave takes one layer's attention outputs x ([row][heads][dim] float32) out of
// V's basis into out, of the products' type.
func (c *Context) Leave(t *Turner, layer int, out, x Ptr, rows int, s Stream) error {
	p := leaveParams{X: x, Signs: t.vSigns, Mean: t.mean(layer), Out: out, N: int32(rows * t.heads), Heads: int32(t.heads), Group: int32(t.heads / t.g.KVHeads), Brain: t.brain, Scale: t.scale()}
	return c.Launch(t.leave, warpsFor(rows*t.heads, 0), s, paramBytes(&p))
}

// mean is where the means of a layer's values are; 0: none.
func (t *Turner) mean(layer int) Ptr {
	if t.means == 0 {
		return 0
	}
	return t.means + Ptr(4*layer*t.g.KVHeads*t.g.HeadDim)
}

// AddBias adds bias ([dim] float32) to rows of x.
func (c *Context) AddBias(t *Turner, x, bias Ptr, rows, dim int, s Stream) error {
	p := biasParams{X: x, Bias: bias, Dim: int32(dim), N: int32(rows * dim)}
	return c.Launch(t.bias, Shape{Grid: blocksOf(rows * dim), Block: layerThreads}, s, paramBytes(&p))
}

func (t *Turner) scale() float32 { return float32(1 / math.Sqrt(float64(t.g.HeadDim))) }

// warpsFor is a launch of n warps.
func warpsFor(n, shared int) Shape {
	return Shape{Grid: [3]int{(n + turnThreads/32 - 1) / (turnThreads / 32), 1, 1}, Block: turnThreads, Shared: shared, Early: true}
}

// Workspace is memory that one plan after another works in. A step's items are
// where the caller puts them.
type Workspace struct {
	d                       *Decoder
	states, values, arrived Ptr
	slots                   int
}

// NewWorkspace makes room for plans of so many sequences.
func (c *Context) NewWorkspace(d *Decoder, sequences int) (*Workspace, error) {
	w := &Workspace{d: d, slots: d.MaxSlots(c.info, sequences)}
	for _, part := range []struct {
		dst *Ptr
		n   int
	}{{&w.states, w.slots * d.runs() * 4 * 8}, {&w.values, w.slots * d.runs() * 64 * 4}, {&w.arrived, w.slots * d.runs() * 4}} {
		var err error
		if *part.dst, err = c.Alloc(part.n); err != nil {
			return nil, err
		}
	}
	if err := c.FillAsync(w.arrived, 0, w.slots*d.runs()*4, 0); err != nil {
		return nil, err
	}
	return w, c.Synchronize(0)
}

// CloseWorkspace gives a workspace's memory back.
func (c *Context) CloseWorkspace(w *Workspace) error {
	for _, p := range []Ptr{w.states, w.values, w.arrived} {
		if err := c.Free(p); err != nil {
			return err
		}
	}
	return nil
}

// Step is a plan in the workspace: items is where its Items lie on the device,
// blocks how many it has.
func (w *Workspace) Step(items Ptr, blocks int) *Step {
	return &Step{d: w.d, grid: [3]int{blocks, 1, 1}, p: attendParams{Items: items, States: w.states, Values: w.values, Arrived: w.arrived}}
}

// works is the number of pieces that the planner gives blocks to.
func (d *Decoder) works(sequences int) int {
	return sequences * d.g.KVHeads * ((d.group + d.queries - 1) / d.queries)
}

// MaxSlots is the most partial states that a plan of this decoder needs: every
// block ends in one piece of work at most, and every piece has a last part.
func (d *Decoder) MaxSlots(info Info, sequences int) int { return 2 * (d.works(sequences) + info.SMs) }

// MaxItems is the size in bytes of the longest list of items.
func (d *Decoder) MaxItems(info Info, sequences int) int {
	return itemBytes * (d.MaxSlots(info, sequences) + info.SMs)
}

const itemBytes = 64

// Items are the plan's items as the device reads them, and Blocks the number of
// blocks.
func (p *Plan) Items() []byte { return bytesOf(p.items) }

// Blocks is the number of blocks that the plan is for.
func (p *Plan) Blocks() int { return p.blocks }

// Pad gives the plan exactly n blocks, which serves as long as the work fits in
// them: further ones attend to nothing, for a sequence that is nobody's.
func (p *Plan) Pad(n, nobody int) {
	more := n - p.blocks
	if more < 0 {
		panic(fmt.Sprintf("BUG: a plan of %d blocks for %d", p.blocks, n))
	}
	items := make([]item, 0, len(p.items)+more)
	items = append(items, p.items[:p.blocks]...)
	for range more {
		items = append(items, item{Sequence: int32(nobody), Next: -1})
	}
	items = append(items, p.items[p.blocks:]...)
	for i := range items {
		if items[i].Next >= 0 {
			items[i].Next += int32(more)
		}
	}
	p.items, p.blocks, p.even = items, n, evenPlan{}
}
