package cpu

import (
	"sync"
	"sync/atomic"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/codes"
	"github.com/terse-llm/terse/kernels/cpu/encode"
	"github.com/terse-llm/terse/kernels/cpu/exact"
	"github.com/terse-llm/terse/kernels/cpu/fused"
	"github.com/terse-llm/terse/kernels/cpu/matmul"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/kernels/cpu/vec"
	"github.com/terse-llm/terse/kernels/cpu/widen"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Ops is the processor as a backend: kernels.Ops.
type Ops struct {
	*shared
	stop *atomic.Bool // see Until; nil = nothing stops it
}

// shared is what a backend has in common with those that Until makes of it.
type shared struct {
	level   cpu.Level
	threads int
	pool    *pool

	codes   *codes.Kernels
	encode  *encode.Kernels
	exact   exact.Kernels
	fused   fused.Kernels
	matmul  *matmul.Kernels
	softmax *softmax.Kernels
	vec     *vec.Kernels
	widen   widen.Kernels

	// Scratch of calls and of cores; they come back, so that a decode step
	// allocates nothing.
	attends  sync.Pool // *attending
	scratch  sync.Pool // *attender
	linears  sync.Pool // *linear
	multiply sync.Pool // *matmul.Scratch
	vectors  sync.Pool // *vectors
	mappings sync.Pool // *mapping
	encoders sync.Pool // *encode.Scratch
}

// New makes a backend of threads cores, at least one, with the kernels of a
// level, which must be one of cpu.Levels. Close ends its goroutines.
func New(threads int, level cpu.Level) *Ops {
	if !cpu.Has(level) {
		panic("BUG: this machine has no " + level.String())
	}
	threads = max(1, threads)
	return &Ops{shared: &shared{
		level: level, threads: threads, pool: newPool(threads),
		codes: codes.For(level), encode: encode.For(level), exact: exact.For(level), fused: fused.For(level),
		matmul: matmul.For(level), softmax: softmax.For(level), vec: vec.For(level), widen: widen.For(level),
		attends:  poolOf[attending](),
		scratch:  poolOf[attender](),
		linears:  poolOf[linear](),
		multiply: poolOf[matmul.Scratch](),
		vectors:  poolOf[vectors](),
		mappings: poolOf[mapping](),
		encoders: poolOf[encode.Scratch](),
	}}
}

// Best is New with the best level that this machine and build have.
func Best(threads int) *Ops { return New(threads, cpu.Best()) }

// Portable reports whether there is no assembly for this machine or build.
func (o *Ops) Portable() bool { return o.level == cpu.Generic }

func poolOf[T any]() sync.Pool { return sync.Pool{New: func() any { return new(T) }} }

// Close ends the backend's goroutines. It must not be in use.
func (o *Ops) Close() { o.pool.close() }

// Name is "cpu/" and the level.
func (o *Ops) Name() string { return "cpu/" + o.level.String() }

// Threads is the number of cores in use.
func (o *Ops) Threads() int { return o.threads }

// Parallel does tasks 0..n-1 over the cores and waits.
func (o *Ops) Parallel(n int, t kernels.Task) { o.pool.do(n, t) }

// Until is the backend for Linear and Attend that may be given up.
func (o *Ops) Until(stop *atomic.Bool) kernels.Ops { return &Ops{o.shared, stop} }

// Attend runs the jobs over the cores.
func (o *Ops) Attend(jobs []kernels.AttnJob) {
	a := o.attends.Get().(*attending)
	a.plan(o, jobs)
	o.pool.until(o.stop, len(a.items), a)
	a.forget()
	o.attends.Put(a)
}

// Store writes rows of K and V, from token tok of the page on.
func (o *Ops) Store(g *quant.Geometry, page []byte, tok int, k, v []float32) {
	o.encode.PutExact(g, page, tok, k, v)
}

// Encode codes a page.
func (o *Ops) Encode(g *quant.Geometry, a quant.EncodeArgs) {
	s := o.encoders.Get().(*encode.Scratch)
	o.encode.Encode(g, a, s)
	o.encoders.Put(s)
}

// Embed widens rows of table.
func (o *Ops) Embed(dst []float32, table tensor.Tensor, ids []int32) {
	dim := table.Shape[1]
	for i, id := range ids {
		o.vec.Widen(dst[i*dim:][:dim], table.DType, table.Row(int(id)))
	}
}
