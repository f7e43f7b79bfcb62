package cuda

import "fmt"

// fewParams is the parameter of products of few rows (src/few.cuh).
type fewParams struct {
	W, X, Y, Gated       Ptr
	From, Weight, Mean   Ptr
	Which                Ptr
	In, Out, Rows, Brain int32
	Add                  int32
	Heads, Group         int32
	Factor               float32
}

const (
	fewThreads = 256
	fewStage   = fewThreads / 32 * 2048    // bytes of a stage of all warps' rings
	fewSums    = 2 * fewThreads / 32 * 512 // of the sums of two tiles
	fewPad     = 32                        // numbers between rows in shared memory
	// MaxFew is the most rows of a product of few rows.
	MaxFew = 8
)

// fewStages are the stages of the kernels' rings: many if there is room beside the
// rows, else few.
var fewStages = [2]int{10, 5}

// fewKernel is one kernel, with each number of stages; 0 where the GPU has no room
// for it.
type fewKernel [len(fewStages)]Function

// Few is products of at most MaxFew rows, by kernels that read the weights once and
// whose sums for a row do not depend on what other rows there are.
type Few struct {
	given, norm, leave fewKernel
	brain              int32
	shared             int // bytes of shared memory that a block may have
	blocks             int
}

// NewFew finds the kernels; products is F16 or BF16, dim the head_dim of what
// FewLeft takes.
func (c *Context) NewFew(m Module, products DType, dim int) (*Few, error) {
	k := &Few{blocks: c.info.SMs, shared: c.info.SharedBlock}
	if products == BF16 {
		k.brain = 1
	}
	for _, f := range []struct {
		name string
		dst  *fewKernel
	}{{"few_rows", &k.given}, {"few_norm", &k.norm}, {fmt.Sprintf("few_leave_%d", dim), &k.leave}} {
		for i, stages := range fewStages {
			if fewShared(stages, 1, 32) > k.shared {
				continue
			}
			var err error
			if f.dst[i], err = c.Function(m, fmt.Sprintf("%s_%d", f.name, stages), k.shared); err != nil {
				return nil, err
			}
		}
	}
	return k, nil
}

// fewShared is the shared memory of a block.
func fewShared(stages, rows, in int) int { return stages*fewStage + fewSums + 2*rows*(in+fewPad) }

// ring is which of fewStages serves rows of so many numbers; -1: none.
func (k *Few) ring(rows, in int) int {
	for i, stages := range fewStages {
		if fewShared(stages, rows, in) <= k.shared {
			return i
		}
	}
	return -1
}

// Takes reports whether the kernels are for products of rows of so many numbers:
// they have room in shared memory.
func (k *Few) Takes(rows, in int) bool {
	return rows <= MaxFew && in%32 == 0 && k.ring(rows, in) >= 0
}

// Product is one of x ([Rows][In]) with W ([Out][In], of the products' type).
type Product struct {
	W             Ptr
	Rows, In, Out int
	Y             Ptr  // [Rows][Out] float32
	Add           bool // to what is in Y
	// Gated, if not 0, is where silu(x·Gᵀ)·(x·Uᵀ) goes in place of Y, of the products'
	// type: W is G and U ([Out][In] each) one behind the other.
	Gated Ptr
}

// Few puts a product into the stream; x is of the products' type.
func (c *Context) Few(k *Few, a Product, x Ptr, s Stream) error {
	p := k.params(&a)
	p.X = x
	return k.launch(c, &k.given, &a, &p, s)
}

// FewNormed is Few of the norm of rows of the residual stream ([row][In] float32) as
// RMSNorm makes it; which ([Rows] int32; 0: all) names the rows.
func (c *Context) FewNormed(k *Few, a Product, stream, weight, which Ptr, eps float32, s Stream) error {
	p := k.params(&a)
	p.From, p.Weight, p.Which, p.Factor = stream, weight, which, eps
	return k.launch(c, &k.norm, &a, &p, s)
}

// FewLeft is Few of one layer's attention outputs, taken out of V's basis as Leave
// does.
func (c *Context) FewLeft(k *Few, a Product, t *Turner, layer int, attended Ptr, s Stream) error {
	p := k.params(&a)
	p.From, p.Weight, p.Mean, p.Factor = attended, t.vSigns, t.mean(layer), t.scale()
	p.Heads, p.Group = int32(t.heads), int32(t.heads/t.g.KVHeads)
	return k.launch(c, &k.leave, &a, &p, s)
}

func (k *Few) params(a *Product) fewParams {
	p := fewParams{W: a.W, Y: a.Y, Gated: a.Gated, In: int32(a.In), Out: int32(a.Out), Rows: int32(a.Rows), Brain: k.brain}
	if a.Add {
		p.Add = 1
	}
	return p
}

func (k *Few) launch(c *Context, f *fewKernel, a *Product, p *fewParams, s Stream) error {
	tile, ring := 16, k.ring(a.Rows, a.In)
	if a.Gated != 0 {
		tile = 8
	}
	if ring < 0 {
		panic(fmt.Sprintf("BUG: a product of %d rows of %d numbers by the kernel for few", a.Rows, a.In))
	}
	blocks := min(k.blocks, (a.Out+tile-1)/tile)
	return c.Launch(f[ring], Shape{Grid: [3]int{blocks, 1, 1}, Block: fewThreads, Shared: fewShared(fewStages[ring], a.Rows, a.In), Early: true}, s, paramBytes(p))
}
