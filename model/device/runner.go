package device

import (
	"errors"
	"fmt"
	"slices"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
)

// StepTokens is how many tokens of prompts a step should take: fewer leave
// multiprocessors of a large GPU without a block of prompt attention (with 512 and 8
// KV heads a third of an H200's), and a matrix is read for fewer rows.
const StepTokens = 2048

// RunnerOptions size a runner.
type RunnerOptions struct {
	Rows      int // of a step, at most
	Sequences int // of a step, at most
	Context   int // tokens of a sequence, at most
	NoGraphs  bool
	// Pinned is how much of the host's memory is pinned when the pages are made, in
	// bytes, for sequences that come from or go to another worker: what one of Context
	// tokens moves, if that is less. More is pinned as it is needed, which holds steps
	// up (22 ms for 64 MiB).
	Pinned int64
}

// Runner is a model.Runner on a GPU.
type Runner struct {
	model    *Model
	geometry *quant.Geometry
	options  RunnerOptions
	dev      *cuda.Device // of its own: its calls wait for nobody else's
	kernels  kernelSet
	work     *cuda.Workspace
	pages    *pages
	stream   cuda.Stream  // of steps
	copies   cuda.Stream  // between the device and the host
	sends    cuda.Stream  // of the inputs of steps that are begun early
	written  []cuda.Event // of each layer: its pages are written
	arrived  []cuda.Event // of each layer: they are on the host
	copied   cuda.Event   // the last copy to the host that a step wants
	settled  cuda.Event   // in the stream of steps: pages are who they are said to be
	sent     cuda.Event   // the last of them is on the device
	uploaded cuda.Event   // in that of copies: what has come of prompts is on the device
	coding   [2]cuda.Event
	finished [2]cuda.Event // of the sides of the inputs: the step's results are on the host
	owned    []cuda.Ptr

	in       inputs
	act      activations
	out      outputs
	step     step
	ahead    ahead
	choosing chooser
	graphs   map[graphKey]*graphPair
}

// activations are a step's, on the device. There is one row more than the most of
// a step: blocks that have nothing to attend to write there.
type activations struct {
	x, sum        cuda.Ptr // [row][Hidden] float32: the residual stream, and what is added to it
	normed        cuda.Ptr // [row][Hidden], as products read it
	qkv           cuda.Ptr // [row][heads + 2·kv heads][dim] float32
	q, k, v       cuda.Ptr // [row][heads][dim] float32
	attended      cuda.Ptr // likewise
	turned        cuda.Ptr // [row][heads][dim], as products read it
	gateUp, gated cuda.Ptr // [row][2·Intermediate] float32, [row][Intermediate]
}

// NewRunner makes a runner with pages of g; cal is nil where the model has no
// calibration.
func (m *Model) NewRunner(g *quant.Geometry, cal *quant.Calibration, o RunnerOptions) (*Runner, error) {
	tf, err := quant.NewTransform(g, cal)
	if err != nil {
		return nil, err
	}
	if o.Context = min(o.Context, m.context); o.Rows < 1 || o.Sequences < 1 || o.Context < 1 {
		return nil, fmt.Errorf("BUG: a runner of %+v", o)
	}
	dev, err := m.gpu.driver.Open(m.gpu.options.Ordinal)
	if err != nil {
		return nil, err
	}
	r := &Runner{model: m, geometry: g, options: o, dev: dev, graphs: map[graphKey]*graphPair{}}
	if err := dev.Do(func(c *cuda.Context) error { return r.open(c, tf) }); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot prepare the GPU for steps of %d rows: %w", o.Rows, err), r.Close())
	}
	return r, nil
}

func (r *Runner) open(c *cuda.Context, tf *quant.Transform) (err error) {
	m, cfg := r.model, &r.model.config
	if _, err := c.OpenBLAS(m.gpu.options.Libraries...); err != nil {
		return err
	}
	if r.kernels, err = newKernels(c, m.gpu.module, cfg, r.geometry, tf, m.products); err != nil {
		return err
	}
	if r.kernels.decoder != nil {
		if r.work, err = c.NewWorkspace(r.kernels.decoder, r.options.Sequences); err != nil {
			return err
		}
	}
	if r.stream, err = c.NewStream(); err != nil {
		return err
	}
	if r.copies, err = c.NewStream(); err != nil {
		return err
	}
	if r.sends, err = c.NewStream(); err != nil {
		return err
	}
	if r.written, err = newEvents(c, cfg.Layers); err != nil {
		return err
	}
	if r.arrived, err = newEvents(c, cfg.Layers); err != nil {
		return err
	}
	for _, e := range []*cuda.Event{&r.copied, &r.settled, &r.sent, &r.uploaded, &r.finished[0], &r.finished[1]} {
		if *e, err = c.NewEvent(false); err != nil {
			return err
		}
	}
	for i := range r.coding {
		if r.coding[i], err = c.NewEvent(true); err != nil {
			return err
		}
	}
	if err := r.allocActivations(c); err != nil {
		return err
	}
	return errors.Join(r.choosing.open(c, r), r.in.open(c, r), r.out.open(c, r))
}

// newEvents makes n events that are not timed; with an error, those that there are.
func newEvents(c *cuda.Context, n int) (events []cuda.Event, err error) {
	for range n {
		e, err := c.NewEvent(false)
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
	return events, nil
}

func (r *Runner) allocActivations(c *cuda.Context) error {
	var errs []error
	for _, b := range r.act.parts(&r.model.config) {
		var err error
		*b.dst, err = r.alloc(c, b.row*(r.options.Rows+1))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// activation is one of a step's arrays on the device.
type activation struct {
	dst *cuda.Ptr
	row int // bytes
}

func (a *activations) parts(c *model.Config) []activation {
	heads, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	return []activation{
		{&a.x, 4 * c.Hidden}, {&a.sum, 4 * c.Hidden}, {&a.normed, 2 * c.Hidden}, {&a.qkv, 4 * (heads + 2*kv)},
		{&a.q, 4 * heads}, {&a.k, 4 * kv}, {&a.v, 4 * kv}, {&a.attended, 4 * heads}, {&a.turned, 2 * heads},
		{&a.gateUp, 8 * c.Intermediate}, {&a.gated, 2 * c.Intermediate},
	}
}

// activationBytes is what a step of so many rows of c has on the device.
func activationBytes(c *model.Config, rows int) (n int64) {
	for _, a := range new(activations).parts(c) {
		n += int64(a.row) * int64(rows+1)
	}
	return n
}

// alloc takes memory until Close.
func (r *Runner) alloc(c *cuda.Context, n int) (cuda.Ptr, error) {
	p, err := c.Alloc(n)
	if err == nil {
		r.owned = append(r.owned, p)
	}
	return p, err
}

// Close gives everything back; no step may be running, and nobody may be reading
// pages on the host.
func (r *Runner) Close() error {
	err := r.dev.Do(func(c *cuda.Context) error {
		errs := []error{c.Synchronize(r.stream), c.Synchronize(r.copies), c.Synchronize(r.sends)}
		errs = append(errs, r.forget(c))
		for _, p := range r.owned {
			errs = append(errs, c.Free(p))
		}
		for _, e := range slices.Concat(r.written, r.arrived, r.coding[:], r.finished[:], []cuda.Event{r.copied, r.settled, r.sent, r.uploaded}) {
			if e != 0 {
				errs = append(errs, c.CloseEvent(e))
			}
		}
		if r.work != nil {
			errs = append(errs, c.CloseWorkspace(r.work))
		}
		errs = append(errs, r.kernels.close(c))
		if r.pages != nil {
			errs = append(errs, r.pages.close(c))
		}
		errs = append(errs, r.in.close(c), r.out.close(c), r.choosing.close(c))
		for _, s := range []cuda.Stream{r.stream, r.copies, r.sends} {
			if s != 0 {
				errs = append(errs, c.CloseStream(s))
			}
		}
		return errors.Join(errs...)
	})
	return errors.Join(err, r.dev.Close())
}

// Config is the model's.
func (r *Runner) Config() *model.Config { return &r.model.config }

// Geometry is the pages'.
func (r *Runner) Geometry() *quant.Geometry { return r.geometry }

// Numerics names what computes.
func (r *Runner) Numerics() string {
	kind := "f16"
	if r.model.products == cuda.BF16 {
		kind = "bf16"
	}
	return "cuda/" + r.dev.Info.Name + "/" + kind
}

// Step runs the rows of b.
func (r *Runner) Step(b *model.Batch) (model.Result, error) {
	if err := r.check(b); err != nil {
		return model.Result{}, fmt.Errorf("cannot run the batch: %w", err)
	}
	r.step.lay(r, b)
	var res model.Result
	err := r.dev.Do(func(c *cuda.Context) (err error) {
		res, err = r.run(c, b)
		return err
	})
	return res, err
}

func (r *Runner) check(b *model.Batch) error {
	if err := b.Check(&r.model.config); err != nil {
		return err
	}
	if b.Rows() > r.options.Rows || len(b.Segments) > r.options.Sequences {
		return fmt.Errorf("BUG: %d rows of %d sequences for a runner of %d and %d", b.Rows(), len(b.Segments), r.options.Rows, r.options.Sequences)
	}
	for i, s := range b.Segments {
		if s.Pos+s.Rows > r.options.Context {
			return fmt.Errorf("BUG: segment %d ends at position %d of at most %d", i, s.Pos+s.Rows, r.options.Context)
		}
	}
	return nil
}
