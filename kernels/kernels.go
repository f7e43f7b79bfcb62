package kernels

import (
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Ops is what a backend computes. All activations are float32, row-major.
// Implementations are safe for concurrent use and may use several cores.
type Ops interface {
	// Name is the backend's name for logs ("ref", "cpu/avx2", …).
	Name() string
	// Linear computes dst[r][o] = Σ_i x[r][i]·w[o][i] + bias[o] for rows rows.
	// w has shape [out, in] in any dtype; bias is nil or has out elements.
	Linear(dst, x []float32, rows int, w tensor.Tensor, bias []float32)
	// RMSNorm computes dst[r] = x[r] / sqrt(mean(x[r]²) + eps) · weight for each
	// run of len(weight) elements; dst may be x.
	RMSNorm(dst, x, weight []float32, eps float32)
	// RoPE rotates every head of x ([len(pos)][heads][headDim]) in
	// place by its row's position.
	RoPE(x []float32, heads, headDim int, pos []int, rope *RoPE)
	// SwiGLU computes gate = silu(gate)·up in place.
	SwiGLU(gate, up []float32)
	// Embed widens row ids of table into dst[len(ids)][dim].
	Embed(dst []float32, table tensor.Tensor, ids []int32)
	// Attend runs the jobs, each one KV head of one group of query rows.
	Attend(jobs []AttnJob)
	// Threads is the number of cores the backend uses.
	Threads() int
	// Parallel runs f(0..n-1) over the backend's cores and waits.
	Parallel(n int, f func(i int))
}

// RoPE is a rotary embedding: inverse frequencies and how a head's channels
// pair up.
type RoPE struct {
	InvFreq []float32 // radians per position, one per pair; its length is rotary_dim/2
	// Scale multiplies cos and sin (YaRN-style attention factors); 1 normally.
	Scale float32
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
}

// Tile is a run of tokens of one page, K and V each read from the exact or from
// the coded form. A page read partly as codes and partly exactly gives two
// tiles.
type Tile struct {
	First          int    // position of the page's token 0
	Lo, Hi         int    // tokens of the page, before the causal limit
	Exact, Coded   []byte // this layer of the page; nil where not read
	KCoded, VCoded bool
}
