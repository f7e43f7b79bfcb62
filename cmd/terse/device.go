package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/device"
	"github.com/terse-llm/terse/quant"
)

// deviceFlag chooses what computes: auto, cpu or cuda[:N].
type deviceFlag struct{ name string }

func (f *deviceFlag) register(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "device", "auto", "what to compute on: cpu; cuda or cuda:N, an NVIDIA GPU; auto, the first GPU that can run the model, else the processor")
}

// gpu reports whether a GPU is to be tried, which, and whether nothing else will
// do.
func (f *deviceFlag) gpu() (try bool, ordinal int, insist bool, err error) {
	switch kind, n, numbered := strings.Cut(f.name, ":"); {
	case f.name == "cpu":
		return false, 0, false, nil
	case f.name == "auto":
		return true, 0, false, nil
	case f.name == "cuda":
		return true, 0, true, nil
	case kind == "cuda" && numbered:
		if ordinal, err := strconv.Atoi(n); err == nil && ordinal >= 0 {
			return true, ordinal, true, nil
		}
	}
	return false, 0, false, fmt.Errorf("--device %q: choose auto, cpu, cuda or cuda:N", f.name)
}

// accelerator is a model on a GPU.
type accelerator struct {
	gpu     *device.GPU
	model   *device.Model
	runners []*device.Runner
}

// close lets go of the runners and the GPU.
func (a *accelerator) close() error {
	var errs []error
	for _, r := range a.runners {
		errs = append(errs, r.Close())
	}
	return errors.Join(append(errs, a.model.Close(), a.gpu.Close())...)
}

// onGPU puts the node's model onto the GPU that the flag asks for, and says how
// large its KV cache may be; nil where the processor computes.
func (n *node) onGPU() (*accelerator, error) {
	try, ordinal, insist, err := n.flags.engine.device.gpu()
	if err != nil || !try {
		return nil, err
	}
	a, err := n.openGPU(ordinal)
	if err == nil || insist {
		return a, err
	}
	level := slog.LevelInfo
	if errors.Is(err, cuda.ErrNoDriver) {
		level = slog.LevelDebug // most machines have no GPU: nothing to tell
	}
	n.log.Log(context.Background(), level, "computing on the processor: no GPU can be used", "why", err)
	return nil, nil
}

func (n *node) openGPU(ordinal int) (*accelerator, error) {
	gpu, err := device.Open(device.Options{Ordinal: ordinal})
	if err != nil {
		return nil, err
	}
	a := &accelerator{gpu: gpu}
	free, err := gpu.FreeMemory()
	if err == nil {
		n.room = device.KVRoom(&n.files.config, free)
		n.cfg.StepTime = engine.StepTime // a GPU finishes what it has begun
		n.cfg.KVMemory = n.flags.kvMemory(n.g, n.files.config.MaxContext, n.room)
		err = gpu.Fits(&n.files.config, n.g, n.cal, n.cfg.KVMemory)
	}
	if err == nil {
		var w *model.Weights
		if w, err = model.Find(n.files.config, n.files.source); err == nil {
			a.model, err = gpu.Load(w, n.maxContext())
		}
	}
	if err != nil {
		return nil, errors.Join(err, gpu.Close())
	}
	n.log.Info("computing on a GPU", "gpu", gpu.Info().Name, "libraries", gpu.Versions())
	return a, nil
}

// maxContext is the most tokens that a sequence may have.
func (n *node) maxContext() int {
	if n.cfg.MaxContext > 0 {
		return n.cfg.MaxContext
	}
	return n.files.config.MaxContext
}

// newRunner makes what an engine of the node computes with; the caller of close
// need not know which it is.
func (n *node) newRunner() (model.Runner, error) {
	if n.gpu == nil {
		return model.NewRunner(n.model, n.g, n.cal)
	}
	r, err := n.gpu.model.NewRunner(n.g, n.cal, device.RunnerOptions{
		Rows: n.cfg.StepTokens + n.cfg.MaxSeqs, Sequences: n.cfg.MaxSeqs, Context: n.maxContext(),
	})
	if err != nil {
		return nil, err
	}
	n.gpu.runners = append(n.gpu.runners, r)
	return r, nil
}

// closeGPU lets go of the GPU where there is one.
func (n *node) closeGPU() {
	if n.gpu == nil {
		return
	}
	if err := n.gpu.close(); err != nil {
		n.log.Warn("the GPU could not be given back", "error", err)
	}
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

// backend names what computes.
func (n *node) backend() string {
	if n.gpu != nil {
		return "cuda/" + n.gpu.gpu.Info().Name
	}
	return fmt.Sprintf("%s, %d threads", n.ops.Name(), n.ops.Threads())
}
