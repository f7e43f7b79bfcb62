package cases

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Work is one thing to time, with what it must do at least.
type Work struct {
	Name  string  // kind/shape/…
	Group string  // works of one group are timed in turns
	Bytes float64 // that one run reads from memory at least
	// Operations of one run (a multiplication and its addition are two), in
	// float32 and in 8-bit integers.
	Flops, IntOps float64
	Units         float64 // of what one run does
	Unit          string  // "row", "token·head", …
	Base          string  // the Work that this one is compared with, "" for none
	Serial        bool    // runs on the calling goroutine alone
	Cached        bool    // finds its inputs in a cache, as it does in a model
	// Setup makes the inputs and returns one run. Runs take turns over copies of
	// what a model would read from memory anew at each step, so that it is not
	// found in a cache.
	Setup func(ops kernels.Ops) (run func())
}

// coldBytes is what runs walk through before they come to the same bytes again:
// several times the last-level cache of a machine's share.
const coldBytes = 192 << 20

// Copies is how many copies of size bytes runs take turns over.
func Copies(size int) int { return min(48, 1+coldBytes/max(1, size)) }

// Works are all of them.
func Works() []Work {
	var all []Work
	for _, l := range []Linear{
		{Type: tensor.F32, Out: 2048, In: 2048, Rows: 512},
		{Type: tensor.BF16, Out: 2048, In: 2048, Rows: 512},
		{Type: tensor.Q8_0, Out: 2048, In: 2048, Rows: 512},
		{Type: tensor.Q4_0, Out: 2048, In: 2048, Rows: 512},
		{Type: tensor.Q4_K, Out: 2048, In: 2048, Rows: 512},
		{Type: tensor.Q6_K, Out: 2048, In: 2048, Rows: 512},
		{Type: tensor.F32, Out: 8192, In: 2048, Rows: 1},
		{Type: tensor.BF16, Out: 8192, In: 2048, Rows: 1},
		{Type: tensor.Q8_0, Out: 8192, In: 2048, Rows: 1},
		{Type: tensor.Q4_0, Out: 8192, In: 2048, Rows: 1},
		{Type: tensor.Q4_K, Out: 8192, In: 2048, Rows: 1},
		{Type: tensor.Q6_K, Out: 8192, In: 2048, Rows: 1},
		{Type: tensor.Q8_0, Out: 8192, In: 2048, Rows: 4},
		{Type: tensor.Q8_0, Out: 128256, In: 2048, Rows: 1},
	} {
		all = append(all, l.work())
	}
	for _, a := range Attentions() {
		all = append(all, a.Work())
	}
	return append(append(all, elementwise()...), pages()...)
}

// Attentions are the shapes of attention that are timed.
func Attentions() []Attention {
	var all []Attention
	for _, d := range []int{128, 64} {
		for _, n := range []int{16384, 32768} {
			formats := []Format{{"f16", true}, {"hq2", true}, {"hq3", true}}
			if d == 128 && n == 16384 {
				formats = append(formats, Format{"hq2", false}, Format{"hq4", true}, Format{"hack", false}, Format{"hack:v2", false},
					Format{"int4", false}, Format{"kivi", false}, Format{"kvquant", true})
			}
			for _, f := range formats {
				all = append(all, Attention{f, d, 4, 8, 1, n})
			}
		}
	}
	for _, n := range []int{4096, 16384} {
		for _, f := range []Format{{"f16", true}, {"hq2", true}, {"hq3", true}, {"hq4", true}} {
			all = append(all, Attention{f, 128, 4, 1, 64, n})
		}
	}
	return all
}

func (l Linear) work() Work {
	size := l.Type.RowBytes(l.Out * l.In)
	w := Work{
		Name:  "linear/" + l.String(),
		Group: fmt.Sprintf("linear/%d rows", l.Rows),
		Bytes: float64(size + 4*l.Rows*(l.In+l.Out)),
		Units: float64(l.Rows), Unit: "row",
		Setup: func(ops kernels.Ops) func() {
			ms := make([]kernels.Matrix, Copies(size))
			for i := range ms {
				ms[i] = ops.Pack(l.BulkWeights(uint64(i)))
			}
			x, dst := Gaussian(rand.New(rand.NewPCG(1, 1)), l.Rows*l.In), make([]float32, l.Rows*l.Out)
			at, ps := 0, make([]kernels.Projection, 1)
			return func() {
				ps[0] = kernels.Projection{Dst: dst, W: ms[at]}
				ops.Linear(x, l.Rows, ps)
				at = (at + 1) % len(ms)
			}
		},
	}
	ops := 2 * float64(l.Rows) * float64(l.Out) * float64(l.In)
	if block, _ := l.Type.Block(); block > 1 {
		w.IntOps = ops
	} else {
		w.Flops = ops
	}
	return w
}

// Attention is rows queries of one sequence over n tokens.
type Attention struct {
	Format                      Format
	HeadDim, Group, Heads, Rows int // Heads of KV
	Tokens                      int
}

func (a Attention) String() string { return a.shape() + "/" + a.Format.String() }

func (a Attention) shape() string {
	kind := "decode"
	if a.Rows > 1 {
		kind = fmt.Sprintf("prefill%d", a.Rows)
	}
	return fmt.Sprintf("attend/%s/d=%d/group=%d/%dK", kind, a.HeadDim, a.Group, a.Tokens/1024)
}

// Cache makes the sequence, one layer.
func (a Attention) Cache() *Cache {
	c, err := NewCache(a.Format, a.Heads, a.HeadDim, 256, 1)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return c
}

// Work is the attention as something to time.
func (a Attention) Work() Work {
	small := a.Cache()
	sized := &Cache{Geometry: small.Geometry, Tokens: a.Tokens}
	size := a.Heads * sized.bytes()
	pairs := float64(a.Heads*a.Rows*a.Group) * float64(a.Tokens) // of query vectors and keys
	w := Work{
		Name: a.String(), Group: a.shape(), Bytes: float64(size),
		Units: float64(a.Tokens * a.Heads * a.Rows), Unit: "token·head·row",
		Setup: func(ops kernels.Ops) func() {
			layers := 1
			if a.Rows == 1 { // prefill reads a page for many rows
				layers = Copies(size)
			}
			all := make([][]kernels.AttnJob, layers)
			for i := range all {
				all[i] = small.Repeat(a.Tokens).Jobs(a.Group, a.Rows, uint64(i))
			}
			at := 0
			return func() {
				ops.Attend(all[at])
				at = (at + 1) % len(all)
			}
		},
	}
	work := pairs * float64(4*a.HeadDim)
	if f := sized.Geometry.Format; f.Coded() {
		base := a
		base.Format = Format{"f16", true}
		w.Base = base.String()
		if !f.Dequantised() {
			w.IntOps = work
			return w
		}
	}
	w.Flops = work
	return w
}

// The shape of the elementwise works: a prefill chunk of a model of a billion
// weights.
const (
	chunkRows, chunkHidden, chunkInner = 512, 2048, 8192
	chunkHeads, chunkHeadDim           = 32, 64
)

// chunk is the activations of a prefill chunk and what is done to them.
type chunk struct {
	x, y     []float32 // [rows][inner]
	weight   []float32
	angles   *kernels.Angles
	rotation *quant.Rotation
	maps     []float32 // of a quarter as many KV heads
	table    tensor.Tensor
	ids      []int32
}

func newChunk() *chunk {
	r := rand.New(rand.NewPCG(1, 5))
	some := Gaussian(r, 1<<16)
	n := chunkRows * chunkInner
	c := &chunk{
		x: slices.Repeat(some, n/len(some)), y: slices.Repeat(some, n/len(some)), weight: Gaussian(r, chunkHidden),
		angles:   &kernels.Angles{Pairs: chunkHeadDim / 2, Cos: Gaussian(r, chunkRows*chunkHeadDim/2), Sin: Gaussian(r, chunkRows*chunkHeadDim/2)},
		rotation: Rotation(chunkHeadDim, 1), maps: make([]float32, chunkHeads/4*chunkHeadDim*chunkHeadDim),
		table: Linear{Type: tensor.Q8_0, Out: chunkRows, In: chunkHidden}.BulkWeights(1),
	}
	for i := range chunkRows {
		c.ids = append(c.ids, int32(i))
	}
	return c
}

// hidden is the part of x or y that is as wide as the model.
func hidden(x []float32) []float32 { return x[:chunkRows*chunkHidden] }

// elementwise are the works that are neither products nor attention. Values that
// grow from run to run end as infinities or zeros, which take no longer.
func elementwise() []Work {
	const rows = chunkRows * chunkHidden
	work := func(name string, floats int, run func(ops kernels.Ops, c *chunk)) Work {
		return Work{Name: name, Group: "elementwise", Cached: true, Bytes: float64(4 * floats), Units: chunkRows, Unit: "row",
			Setup: func(ops kernels.Ops) func() {
				c := newChunk()
				return func() { run(ops, c) }
			}}
	}
	return []Work{
		work("rmsnorm/512x2048", 2*rows, func(ops kernels.Ops, c *chunk) { ops.RMSNorm(hidden(c.y), hidden(c.x), c.weight, 1e-5) }),
		work("rope/512x32x64", 2*rows, func(ops kernels.Ops, c *chunk) { ops.RoPE(hidden(c.x), chunkHeads, chunkHeadDim, c.angles) }),
		work("swiglu/512x8192", 3*chunkRows*chunkInner, func(ops kernels.Ops, c *chunk) { ops.SwiGLU(c.x, c.y) }),
		work("add/512x2048", 3*rows, func(ops kernels.Ops, c *chunk) { ops.Add(hidden(c.x), hidden(c.y)) }),
		work("embed/Q8_0/512x2048", rows*5/4, func(ops kernels.Ops, c *chunk) { ops.Embed(hidden(c.y), c.table, c.ids) }),
		work("rotate/512x32x64", 2*rows, func(ops kernels.Ops, c *chunk) { ops.Rotate(hidden(c.y), c.rotation, false) }),
		work("map/512x32x64", 2*rows, func(ops kernels.Ops, c *chunk) { ops.Map(hidden(c.y), chunkHeads, chunkHeadDim, c.maps) }),
	}
}

// pages are the works of writing the cache, on one core.
func pages() []Work {
	var all []Work
	for _, f := range []Format{{"hq2", true}, {"hq2", false}, {"hq3", true}, {"hq4", true}, {"hack", false}, {"hack:v2", false}} {
		all = append(all, encodeWork(f, 8, chunkHeadDim))
	}
	return append(all, storeWork(8, chunkHeadDim))
}

// Rotation is a basis change of heads of d channels with random signs, its blocks
// the powers of two that sum to d.
func Rotation(d int, seed uint64) *quant.Rotation {
	r := rand.New(rand.NewPCG(seed, 7))
	rot := &quant.Rotation{Signs: make([]float32, d)}
	for i := range rot.Signs {
		rot.Signs[i] = float32(1 - 2*r.IntN(2))
	}
	for bit := 1 << 20; bit > 0; bit >>= 1 {
		if d&bit != 0 {
			rot.Blocks = append(rot.Blocks, bit)
		}
	}
	return rot
}

// encodeWork codes one layer of a page.
func encodeWork(f Format, heads, d int) Work {
	return Work{
		Name: fmt.Sprintf("encode/%d heads/d=%d/%v", heads, d, f), Group: "page", Serial: true, Cached: true, Units: 64, Unit: "token",
		Bytes: float64(64 * heads * d * 2 * 2),
		Setup: func(ops kernels.Ops) func() {
			c, err := NewCache(f, heads, d, 128, 1)
			if err != nil {
				panic("BUG: " + err.Error())
			}
			a := quant.EncodeArgs{Exact: c.Exact[1], Coded: c.Coded[1], First: 64, Hi: 64, Important: important}
			return func() { ops.Encode(c.Geometry, a) }
		},
	}
}

// storeWork writes a page's tokens in float16.
func storeWork(heads, d int) Work {
	return Work{
		Name: fmt.Sprintf("store/%d heads/d=%d", heads, d), Group: "page", Serial: true, Cached: true, Units: 64, Unit: "token",
		Bytes: float64(64 * heads * d * 2 * (4 + 2)),
		Setup: func(ops kernels.Ops) func() {
			c, err := NewCache(Format{"f16", true}, heads, d, 64, 1)
			if err != nil {
				panic("BUG: " + err.Error())
			}
			k := Gaussian(rand.New(rand.NewPCG(1, 6)), heads*d)
			return func() {
				for tok := range 64 {
					ops.Store(c.Geometry, c.Exact[0], tok, k, k)
				}
			}
		},
	}
}
