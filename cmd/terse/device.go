package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/device"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/sched"
)

// deviceFlag chooses what computes: auto, cpu or cuda[:N]; two of them where a
// process has a prefill and a decode worker.
type deviceFlag struct{ names string }

func (f *deviceFlag) register(c *cobra.Command) {
	c.Flags().StringVar(&f.names, "device", "auto", "what to compute on: cpu; cuda or cuda:N, an NVIDIA GPU; auto, the first GPU that can run the model, else the processor; two, split by a comma, for prompts and for answers (cuda:0,cuda:1)")
}

// place is one device of the flag.
type place struct {
	gpu     bool // to be tried
	ordinal int
	insist  bool // nothing else will do
}

// places are the devices: one, or that of prefill and that of decode.
func (f *deviceFlag) places() ([]place, error) {
	var all []place
	for _, name := range strings.Split(f.names, ",") {
		p, ok := placeOf(name)
		if !ok || len(all) == 2 {
			return nil, fmt.Errorf("--device %q: choose auto, cpu, cuda or cuda:N, or two of them for prompts and answers, as in cuda:0,cuda:1", f.names)
		}
		all = append(all, p)
	}
	return all, nil
}

func placeOf(name string) (place, bool) {
	switch kind, n, numbered := strings.Cut(name, ":"); {
	case name == "cpu":
		return place{}, true
	case name == "auto":
		return place{gpu: true}, true
	case name == "cuda":
		return place{gpu: true, insist: true}, true
	case kind == "cuda" && numbered:
		ordinal, err := strconv.Atoi(n)
		return place{true, ordinal, true}, err == nil && ordinal >= 0
	}
	return place{}, false
}

// backend is a model bound to what computes it.
type backend struct {
	room int64 // bytes that KV caches may have by default

	// On the processor:
	model *model.Model
	ops   *cpu.Ops
	// On a GPU:
	gpu     *device.GPU
	weights *device.Model
	runners []*device.Runner
}

// close lets go of the runners and of what computes.
func (b *backend) close() error {
	if b.ops != nil {
		b.ops.Close()
		return nil
	}
	var errs []error
	for _, r := range b.runners {
		errs = append(errs, r.Close())
	}
	return errors.Join(append(errs, b.weights.Close(), b.gpu.Close())...)
}

// name says what computes.
func (b *backend) name() string {
	if b.gpu != nil {
		return "cuda/" + b.gpu.Info().Name
	}
	return fmt.Sprintf("%s, %d threads", b.ops.Name(), b.ops.Threads())
}

// open makes the backends that the flag asks for, and says how large a KV cache may
// be.
func (n *node) open() error {
	places, err := n.flags.engine.device.places()
	if err != nil {
		return err
	}
	for _, p := range places {
		b, err := n.backendAt(p)
		if err != nil {
			return err
		}
		n.backends = append(n.backends, b)
	}
	n.cfg.KVMemory = n.flags.kvMemory(n.g, n.files.config.MaxContext, n.room())
	return nil
}

// backendAt is the processor's where the GPU at p cannot be used and need not be.
func (n *node) backendAt(p place) (*backend, error) {
	if !p.gpu {
		return n.onCPU()
	}
	b, err := n.onGPU(p.ordinal)
	if err == nil || p.insist {
		return b, err
	}
	level := slog.LevelInfo
	if errors.Is(err, cuda.ErrNoDriver) {
		level = slog.LevelDebug // most machines have no GPU: nothing to tell
	}
	n.log.Log(context.Background(), level, "computing on the processor: no GPU can be used", "why", err)
	return n.onCPU()
}

// onCPU binds the model for the processor.
func (n *node) onCPU() (_ *backend, err error) {
	b := &backend{ops: cpu.Best(threadsOr(n.flags.engine.threads)), room: machineMemory() / 4}
	if b.ops.Portable() {
		n.log.Warn("no assembly for this processor or build: computing in portable Go, several times slower", "want", "AVX2, FMA and F16C on amd64, or arm64")
	}
	b.model, err = model.Bind(n.files.config, n.files.source, b.ops)
	if err != nil {
		b.ops.Close()
	}
	return b, err
}

// onGPU puts the model onto a GPU.
func (n *node) onGPU(ordinal int) (*backend, error) {
	gpu, err := device.Open(device.Options{Ordinal: ordinal})
	if err != nil {
		return nil, err
	}
	b := &backend{gpu: gpu}
	free, err := gpu.FreeMemory()
	if err == nil {
		b.room = device.KVRoom(&n.files.config, free, n.rows(b))
		err = gpu.Fits(&n.files.config, n.g, n.cal, n.flags.kvMemory(n.g, n.files.config.MaxContext, b.room), n.rows(b))
	}
	if err == nil {
		var w *model.Weights
		if w, err = model.Find(n.files.config, n.files.source); err == nil {
			b.weights, err = gpu.Load(w, n.maxContext())
		}
	}
	if err != nil {
		return nil, errors.Join(err, gpu.Close())
	}
	n.log.Info("computing on a GPU", "gpu", gpu.Info().Name, "ordinal", ordinal, "libraries", gpu.Versions())
	return b, nil
}

// room is what KV caches of any worker of the node may have by default.
func (n *node) room() int64 {
	least := n.backends[0].room
	for _, b := range n.backends[1:] {
		least = min(least, b.room)
	}
	return least
}

// backendOf is what workers of a role compute on.
func (n *node) backendOf(r terse.Role) *backend {
	if r.Decodes() {
		return n.backends[len(n.backends)-1]
	}
	return n.backends[0]
}

// maxContext is the most tokens that a sequence may have.
func (n *node) maxContext() int {
	if n.cfg.MaxContext > 0 {
		return n.cfg.MaxContext
	}
	return n.files.config.MaxContext
}

// stepTokens is the --chunk flag, or what suits a backend.
func (n *node) stepTokens(b *backend) int {
	tokens := sched.StepTokens
	if b.gpu != nil {
		tokens = device.StepTokens
	}
	return cmp.Or(n.flags.engine.chunk, tokens)
}

// rows is the most that a step on b has.
func (n *node) rows(b *backend) int { return n.stepTokens(b) + n.cfg.MaxSeqs }

// mostPinned is how much memory of the host a worker on a GPU pins when it starts.
const mostPinned = 2 << 30

// newRunner makes what an engine of the node computes with; the caller of close
// need not know which it is.
func (n *node) newRunner(role terse.Role) (model.Runner, error) {
	b := n.backendOf(role)
	if b.gpu == nil {
		return model.NewRunner(b.model, n.g, n.cal)
	}
	o := device.RunnerOptions{Rows: n.rows(b), Sequences: n.cfg.MaxSeqs, Context: n.maxContext()}
	if role != terse.RoleBoth { // every prompt is handed over
		o.Pinned = min(mostPinned, machineMemory()/16)
	}
	r, err := b.weights.NewRunner(n.g, n.cal, o)
	if err != nil {
		return nil, err
	}
	b.runners = append(b.runners, r)
	return r, nil
}

// supported says why a backend cannot run the node's KV format.
func (n *node) supported() error {
	for _, b := range n.backends {
		if b.gpu == nil {
			continue
		}
		if err := b.gpu.Supports(&n.files.config, n.g, n.cal); err != nil {
			return err
		}
	}
	return nil
}

// closeBackends lets go of all that computes.
func (n *node) closeBackends() {
	for _, b := range n.backends {
		if err := b.close(); err != nil {
			n.log.Warn("the GPU could not be given back", "error", err)
		}
	}
	n.backends = nil
}

// backend names what computes.
func (n *node) backend() string {
	var names []string
	for _, b := range n.backends {
		names = append(names, b.name())
	}
	return strings.Join(names, " and ")
}

// kvMemory is the --kv-memory flag, or what the wanted sequences need at full
// length, but room at most.
func (f *nodeFlags) kvMemory(g *quant.Geometry, maxContext int, room int64) int64 {
	if f.engine.kvMemory != 0 {
		return int64(f.engine.kvMemory)
	}
	if f.engine.ctx > 0 {
		maxContext = min(maxContext, f.engine.ctx)
	}
	perSeq := int64(maxContext/64+2) * int64(g.ExactPage()+g.CodedPage())
	return min(room, perSeq*int64(f.engine.seqs))
}
