package model

import (
	"github.com/terse-llm/terse/attention"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/quant"
)

// Runner computes the steps of one engine: a model over the pages of one KV
// cache, which it has the memory of. [NewRunner] makes the one for processors,
// package model/device the one for GPUs. It is not safe for concurrent use.
type Runner interface {
	// Config is the model's.
	Config() *Config
	// Geometry is the pages'.
	Geometry() *quant.Geometry
	// Numerics names what computes: peers of equal names compute equal bits.
	Numerics() string
	// Pages makes the memory of c's pages. It is called once, before any step.
	Pages(c *kvcache.Cache) (Pages, error)
	// Step runs the rows of b.
	Step(b *Batch) (Result, error)
	// Receive prepares to take over a prompt that another worker writes into view's
	// pages on the host, from token view.Staged on: the pages before it are of a prefix
	// that is there. Its methods, too, are not safe beside Step.
	Receive(view *quant.View) Reception
	// Bring brings what a hand-over of n tokens, all written and whole pages, moves of
	// view's pages to the host, where Stage has bytes for them.
	Bring(view *quant.View, n int) error
}

// Reception is one prompt on its way here. Nothing need be done about one that does
// not end.
type Reception interface {
	// Take begins to take over what has come, without waiting for it. What comes once
	// more, otherwise, is told once more.
	Take(came []quant.Piece) error
	// Adopt takes over all of the n tokens, which have come, and codes what came exact
	// and has a coded form.
	Adopt(n int) error
}

// Pages is the memory of a cache's pages.
type Pages interface {
	// View fills v with t's pages, reusing v's slices, for steps of this runner.
	View(t *kvcache.Table, promptLen int, v *quant.View)
	// Stage is View for sequences whose pages come from, or go to, another worker:
	// v has their bytes on the host too. Where pages live elsewhere, Step brings
	// what it writes, before AfterLayer, of tokens from v.Staged on.
	Stage(t *kvcache.Table, promptLen int, v *quant.View)
}

// Result is what a step gives. Its slices are valid until the next step.
type Result struct {
	Logits []float32 // [len(Batch.Logits)][VocabSize]
	// Tokens has a token after each of Batch.Logits, where the runner picks them: the
	// most likely one, or as Batch.Picks says; nil where it does not. The logits of
	// rows of which only a token is wanted are then not there.
	Tokens []int32
	Stats  Stats
}

// host is the Runner of processors.
type host struct {
	model     *Model
	geometry  *quant.Geometry
	attention *attention.Runner
	scratch   Scratch
}

// NewRunner makes the runner of m on the backend that it is bound for, with
// pages of g; cal is nil where the model has no calibration.
func NewRunner(m *Model, g *quant.Geometry, cal *quant.Calibration) (Runner, error) {
	tf, err := quant.NewTransform(g, cal)
	if err != nil {
		return nil, err
	}
	g = tf.Geometry()
	return &host{model: m, geometry: g, attention: attention.New(m.ops, g, tf, m.Config.AttentionScale())}, nil
}

func (h *host) Config() *Config           { return &h.model.Config }
func (h *host) Geometry() *quant.Geometry { return h.geometry }
func (h *host) Numerics() string          { return h.model.ops.Name() }

func (h *host) Pages(c *kvcache.Cache) (Pages, error) { return hostPages{kvcache.NewStore(c)}, nil }

func (h *host) Step(b *Batch) (Result, error) {
	logits, stats, err := h.model.Forward(h.attention, b, &h.scratch)
	return Result{Logits: logits, Stats: stats}, err
}

func (h *host) Bring(*quant.View, int) error { return nil }

func (h *host) Receive(view *quant.View) Reception { return hostReception{h, view} }

// hostReception is a prompt whose pages are where it comes to.
type hostReception struct {
	host *host
	view *quant.View
}

func (r hostReception) Take([]quant.Piece) error { return nil }

func (r hostReception) Adopt(n int) error {
	r.host.attention.Adopt(r.view, n)
	return nil
}

// hostPages are pages in the machine's memory, where every worker can reach them.
type hostPages struct{ *kvcache.Store }

func (p hostPages) Stage(t *kvcache.Table, promptLen int, v *quant.View) { p.View(t, promptLen, v) }
