package cuda

// fewParams is the parameter of products of few rows (src/few.cuh).
type fewParams struct {
	W, X, Y, Gated       Ptr
	In, Out, Rows, Brain int32
}

const (
	fewThreads = 256
	fewShared  = fewThreads / 32 * 128 * 4
	// MaxFew is the most rows of a product of few rows.
	MaxFew = 8
)

// Few is products of at most MaxFew rows, by a kernel that reads the weights once
// and whose sums for a row do not depend on what other rows there are.
type Few struct {
	f     Function
	brain int32
}

// NewFew finds the kernel; products is F16 or BF16.
func (c *Context) NewFew(m Module, products DType) (*Few, error) {
	f, err := c.Function(m, "few_rows", fewShared)
	k := &Few{f: f}
	if products == BF16 {
		k.brain = 1
	}
	return k, err
}

// fewWeights is the most weights of a matrix that the kernel is faster with than
// cuBLASLt, as measured on an H200: there the start and the end of a launch count.
const fewWeights = 32 << 20

// Takes reports whether the kernel is for products of so many rows with a matrix.
func (k *Few) Takes(rows, in, out int) bool {
	return rows <= MaxFew && in%32 == 0 && in*out <= fewWeights
}

// Few puts y = x·Wᵀ into the stream, as Linear: x is [rows][in], W [out][in] of the
// products' type, y [rows][out] float32.
func (c *Context) Few(k *Few, y, x, w Ptr, rows, in, out int, s Stream) error {
	p := fewParams{W: w, X: x, Y: y, In: int32(in), Out: int32(out), Rows: int32(rows), Brain: k.brain}
	return c.Launch(k.f, Shape{Grid: [3]int{(out + 15) / 16, 1, 1}, Block: fewThreads, Shared: fewShared}, s, paramBytes(&p))
}

// FewGated puts silu(x·Gᵀ)·(x·Uᵀ), of the products' type, into the stream: w is G
// and U ([out][in] each) one behind the other, gated [rows][out].
func (c *Context) FewGated(k *Few, gated, x, w Ptr, rows, in, out int, s Stream) error {
	p := fewParams{W: w, X: x, Gated: gated, In: int32(in), Out: int32(out), Rows: int32(rows), Brain: k.brain}
	return c.Launch(k.f, Shape{Grid: [3]int{(out + 7) / 8, 1, 1}, Block: fewThreads, Shared: fewShared}, s, paramBytes(&p))
}
