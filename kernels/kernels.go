package kernels

import (
	"sync/atomic"

	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Ops is what a backend computes. All activations are float32, row-major.
// Implementations are safe for concurrent use and may use several cores. A
// row's result does not depend on what other rows are computed with it, bit for
// bit: a prompt computed in chunks gives the logits of the prompt computed at
// once.
type Ops interface {
	// Name is the backend's name for logs ("ref", "cpu/avx2", …).
	Name() string
	// Threads is the number of cores the backend uses.
	Threads() int
	// Parallel does tasks 0..n-1 over the backend's cores and waits.
	Parallel(n int, t Task)
	// Until is the same backend, with its cores and scratch, for work that may be
	// given up: once stop is set, Linear and Attend may begin no more pieces and
	// return soon, with results that are worth nothing.
	Until(stop *atomic.Bool) Ops

	// Pack prepares a matrix of shape [out, in] in any dtype for Linear. It may
	// keep w's bytes, which must stay readable, or copy them.
	Pack(w tensor.Tensor) Matrix
	// Linear computes the projections of the same rows:
	// Dst[r][o] = Σ_i x[r][i]·W[o][i] + Bias[o].
	Linear(x []float32, rows int, ps []Projection)
	// RMSNorm computes dst[r] = x[r] / sqrt(mean(x[r]²) + eps) · weight for each
	// run of len(weight) elements; dst may be x.
	RMSNorm(dst, x, weight []float32, eps float32)
	// RoPE rotates every head of x ([rows][heads][headDim]) in place by its
	// row's angles.
	RoPE(x []float32, heads, headDim int, a *Angles)
	// SwiGLU computes gate = silu(gate)·up in place.
	SwiGLU(gate, up []float32)
	// Embed widens rows ids of table into dst[len(ids)][dim].
	Embed(dst []float32, table tensor.Tensor, ids []int32)

	// Rotator has Rotate, Map and Add: the basis of the cache, and residual sums.
	quant.Rotator
	// Store writes rows of K and V, from token tok of the page on, as
	// quant.Geometry.PutExact does, and Encode codes a page as
	// quant.Geometry.Encode does: the same bytes. Both run on the calling
	// goroutine, for use inside Parallel.
	Store(g *quant.Geometry, page []byte, tok int, k, v []float32)
	Encode(g *quant.Geometry, a quant.EncodeArgs)
	// Attend runs the jobs, each one KV head of one group of query rows.
	Attend(jobs []AttnJob)
	// Weigh adds to each job's Weights what its queries' attention gives to every
	// token: the softmax weights, summed over rows and query heads in their order.
	// It does not touch Out. hq and f16 only.
	Weigh(jobs []AttnJob)
}

// Task is work in numbered pieces that may run in any order and at once.
type Task interface{ Do(i int) }

// TaskFunc makes a function a Task.
type TaskFunc func(i int)

// Do calls f.
func (f TaskFunc) Do(i int) { f(i) }

// Matrix is a weight matrix that a backend has prepared; only that backend can
// multiply with it.
type Matrix interface {
	// Shape is the matrix's size: [out, in].
	Shape() (out, in int)
}

// Projection is one product of Linear: the rows' results, the weights and the
// bias ([out], nil for none).
type Projection struct {
	Dst  []float32 // [rows][out]
	W    Matrix
	Bias []float32
}

// Angles are the rotary embedding of some rows: cosines and sines for each row
// and pair of channels, and how a head's channels pair up. Channels beyond the
// pairs stay as they are.
type Angles struct {
	Cos, Sin []float32 // [rows][Pairs]
	Pairs    int       // rotary_dim/2
	// Interleaved pairs channels (2i, 2i+1), as GGUF's permuted Llama weights
	// want; otherwise (i, i+rotary_dim/2), as Hugging Face's.
	Interleaved bool
}

// AttnJob is the attention of some query rows of one sequence over one KV head:
// Out = softmax(Scale·Q·Kᵀ)·V, all in the cache's basis.
type AttnJob struct {
	Geometry *quant.Geometry
	Layer    int
	Head     int       // KV head
	Group    int       // query heads per KV head (GQA)
	Q        []float32 // [rows][Group][HeadDim]
	Out      []float32 // [rows][Group][HeadDim]
	Limit    []int     // per row: the number of tokens it sees (its position + 1)
	Scale    float32   // 1/sqrt(head_dim) or what the model says
	Tiles    []Tile    // in token order; shared by all rows up to Limit
	Weights  []float32 // [token] of the sequence; Weigh only
}

// Tile is a run of tokens of one page, K and V each read from the exact or from
// the coded form. A page read partly as codes and partly exactly gives two
// tiles.
type Tile struct {
	First          int    // position of the page's token 0
	Lo, Hi         int    // tokens of the page, before the causal limit
	Exact, Coded   []byte // this layer of the page; nil where not read
	KCoded, VCoded bool
	// TopOnly says that of hq's codes only the top planes may be read: the second
	// one is not there yet.
	TopOnly bool
}
