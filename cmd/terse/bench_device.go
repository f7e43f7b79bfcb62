package main

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/bench"
	"github.com/terse-llm/terse/internal/synthetic"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/device"
)

func shapeNames() []string {
	var names []string
	for _, s := range synthetic.Shapes() {
		names = append(names, s.Name)
	}
	return names
}

// runGPU is terse bench model --device cuda.
func (f *benchModelFlags) runGPU(c *cobra.Command, m *modelFlags) error {
	var err error
	at, ok := placeOf(f.device)
	if !ok || !at.insist {
		err = fmt.Errorf("--device %q: choose cpu, cuda or cuda:N", f.device)
	}
	o := bench.DeviceOptions{Formats: formatList(f.formats), Steps: f.steps * f.rounds, Chunk: cmp.Or(f.chunk, device.StepTokens), Rounds: f.rounds, Log: f.progress(c)}
	if err == nil {
		o.Depths, err = sizes("depth", f.depths)
	}
	if err == nil {
		o.Batches, err = sizes("batch", f.batch)
	}
	if err == nil {
		o.Prompts, err = sizes("prompt", f.prompts)
	}
	if err == nil {
		err = f.counts(c)
	}
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	if o.GPU, err = device.Open(device.Options{Ordinal: at.ordinal}); err != nil {
		return err
	}
	name, r := f.shape, (*bench.DeviceReport)(nil)
	if f.shape != "" {
		r, err = f.timeShape(c, o)
	} else {
		name, r, err = f.timeModel(c, m, o)
	}
	if err = errors.Join(err, o.GPU.Close()); err != nil {
		return err
	}
	r.Name = name
	return f.print(c, r)
}

func (f *benchModelFlags) timeShape(c *cobra.Command, o bench.DeviceOptions) (*bench.DeviceReport, error) {
	s, err := synthetic.ShapeOf(f.shape)
	if err != nil {
		return nil, usageError{c.CommandPath(), err}
	}
	w := bench.RandomWeights(model.Config{
		Family: "llama", Layers: s.Layers, Hidden: s.Hidden, Intermediate: s.Inner, Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim,
		VocabSize: s.Vocab, MaxContext: s.MaxContext, NormEps: 1e-5, Tied: s.Tied, Rotary: model.Rotary{Theta: float64(s.RopeTheta), Dim: s.HeadDim},
	})
	if o.MadeUp, err = bench.MadeUp(&w.Config, usualBudget); err != nil {
		return nil, err
	}
	return f.timeWeights(c, o, w)
}

func (f *benchModelFlags) timeModel(c *cobra.Command, m *modelFlags, o bench.DeviceOptions) (string, *bench.DeviceReport, error) {
	files, err := m.open()
	if err != nil {
		return "", nil, err
	}
	defer files.source.Close()
	kv := kvFlags{calibration: f.calibration}
	if o.Calibration, err = kv.readCalibration(files); err != nil {
		return "", nil, err
	}
	w, err := model.Find(files.config, files.source)
	if err != nil {
		return "", nil, err
	}
	r, err := f.timeWeights(c, o, w)
	return files.name, r, err
}

func (f *benchModelFlags) timeWeights(c *cobra.Command, o bench.DeviceOptions, w *model.Weights) (*bench.DeviceReport, error) {
	most := 0
	for _, d := range o.Depths {
		most = max(most, d+o.Steps+1024)
	}
	for _, n := range o.Prompts {
		most = max(most, n)
	}
	if o.Model, o.Config = nil, &w.Config; most > w.Config.MaxContext {
		return nil, fmt.Errorf("%d tokens, what is decoded included, are more than the model's context of %d", most, w.Config.MaxContext)
	}
	var err error
	if o.Model, err = o.GPU.Load(w, w.Config.MaxContext); err != nil {
		return nil, err
	}
	r, err := bench.Device(c.Context(), o)
	return r, errors.Join(err, o.Model.Close())
}
