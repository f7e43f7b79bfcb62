package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/bench"
	levels "github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/sched"
)

// newBench is terse bench: how fast kernels and models are on this machine.
func newBench() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure speed on this machine",
		Long: `Times kernels beside the floor that the machine sets, a whole model's prefill and
decode at any depth of the KV cache, the KV transfer between two processes, or whole
requests of a workload. What is compared is timed in turns.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newBenchKernels(), newBenchModel(), newBenchTransfer(), newBenchServe(), newBenchReport())
	return c
}

// benchFlags choose the backend and the form of the report.
type benchFlags struct {
	threads       int
	level, format string
	quiet         bool
}

func (f *benchFlags) register(c *cobra.Command) {
	c.Flags().IntVar(&f.threads, "threads", 0, "cores to compute on (default: all)")
	c.Flags().StringVar(&f.level, "level", "", "instructions to use: "+strings.Join(levelNames(), ", ")+" (default: the last of them)")
	c.Flags().StringVar(&f.format, "format", "table", "table or json")
	c.Flags().BoolVar(&f.quiet, "quiet", false, "do not say on standard error what is being timed")
}

func levelNames() []string {
	var names []string
	for _, l := range levels.Levels() {
		names = append(names, l.String())
	}
	return names
}

// backend makes the operations asked for; the caller closes them.
func (f *benchFlags) backend(c *cobra.Command) (*cpu.Ops, levels.Level, error) {
	if f.threads < 0 || f.threads == 0 && c.Flags().Changed("threads") {
		return nil, 0, usageError{c.CommandPath(), fmt.Errorf("--threads is %d: it must be positive", f.threads)}
	}
	if f.format != "table" && f.format != "json" {
		return nil, 0, usageError{c.CommandPath(), fmt.Errorf("--format %q: choose table or json", f.format)}
	}
	level := levels.Best()
	if f.level != "" {
		found := false
		for _, l := range levels.Levels() {
			if l.String() == f.level {
				level, found = l, true
			}
		}
		if !found {
			return nil, 0, usageError{c.CommandPath(), fmt.Errorf("--level %q: this machine and build have %s", f.level, strings.Join(levelNames(), ", "))}
		}
	}
	return cpu.New(threadsOr(f.threads), level), level, nil
}

// report is what a benchmark prints.
type report interface {
	Table(w io.Writer) error
	JSON(w io.Writer) error
}

func (f *benchFlags) print(c *cobra.Command, r report) error {
	if f.format == "json" {
		return r.JSON(c.OutOrStdout())
	}
	return r.Table(c.OutOrStdout())
}

// progress says on standard error what is being timed.
func (f *benchFlags) progress(c *cobra.Command) func(string) {
	if f.quiet {
		return nil
	}
	return func(what string) { fmt.Fprintf(c.ErrOrStderr(), "%s\n", what) }
}

// newBenchKernels is terse bench kernels.
func newBenchKernels() *cobra.Command {
	var f benchFlags
	var filter string
	var budget time.Duration
	c := &cobra.Command{
		Use:   "kernels",
		Short: "Time each kernel beside its floor",
		Long: `Times the kernels in turns with the rates that the machine can reach at most: reading
memory and multiplying, on one core and on all used. For each kernel and shape it
prints the median and the quartiles, the time per row or token, the rates reached,
the floor (the larger of bytes over the fastest reading and operations over the fastest
multiplying, and which), the time as a multiple of it, and the speed beside the kernel
it is to be compared with: float16 attention for attention on codes.`,
		Example: `  terse bench kernels
  terse bench kernels --filter 'attend/decode' --threads 1 --time 30s
  terse bench kernels --filter 'linear/.*Q8_0' --level avx2 --format json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ops, level, err := f.backend(c)
			if err != nil {
				return err
			}
			defer ops.Close()
			o := bench.KernelOptions{Ops: ops, Level: level, Time: budget, Log: f.progress(c)}
			if o.Filter, err = regexp.Compile(filter); err != nil {
				return usageError{c.CommandPath(), fmt.Errorf("--filter: %w", err)}
			}
			r, err := bench.Kernels(c.Context(), o)
			if err != nil {
				return err
			}
			r.Machine = bench.NewMachine(ops.Threads(), level, version(), ops.Name())
			return f.print(c, r)
		},
	}
	f.register(c)
	c.Flags().StringVar(&filter, "filter", "", "regular expression: time only what matches, and what that is compared with")
	c.Flags().DurationVar(&budget, "time", time.Minute, "time for all rounds together; preparing takes as long again")
	return c
}

// benchModelFlags say what of a model is timed.
type benchModelFlags struct {
	benchFlags
	formats, calibration string
	prompts, depths      string
	steps, rounds, chunk int
	device, shape, batch string
}

// newBenchModel is terse bench model.
func newBenchModel() *cobra.Command {
	var m modelFlags
	var f benchModelFlags
	c := &cobra.Command{
		Use:   "model",
		Short: "Time prefill and decode of a model at any depth",
		Long: `Times prefill of random prompts and decoding of single tokens with the KV cache filled
to a depth, per KV format, all in turns. The depth is made by repeating the pages of a
short text. One sequence, nothing sampled: the figures stand beside those of
llama-bench.`,
		Example: `  terse bench model
  terse bench model --model model.gguf --kv f16,hq2,hq3 --prompt 512,4096 --depth 0,16384,32768
  terse bench model --model model.gguf --prompt none --depth 32768 --threads 1 --format json`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c, &m) },
	}
	m.register(c)
	f.register(c)
	c.Flags().StringVar(&f.formats, "kv", "f16,hq2,hq3", "KV formats, split by commas (options of one format by '+': hq2+sym=on)")
	c.Flags().StringVar(&f.calibration, "calibration", "", "calibration file of the model, 'none' for none (default: as terse serve)")
	c.Flags().StringVar(&f.prompts, "prompt", "512", "prompts to prefill, in tokens; none for none")
	c.Flags().StringVar(&f.depths, "depth", "0,4096", "tokens in the cache before decoding; none for no decoding")
	c.Flags().IntVar(&f.steps, "steps", 16, "tokens decoded in a round")
	c.Flags().IntVar(&f.rounds, "rounds", 3, "rounds")
	c.Flags().IntVar(&f.chunk, "chunk", 0, chunkUsage("tokens of one step of a prefill"))
	c.Flags().StringVar(&f.device, "device", "cpu", "what to time: cpu; cuda or cuda:N, an NVIDIA GPU")
	c.Flags().StringVar(&f.shape, "shape", "", "on a GPU: random weights of this shape instead of a model ("+strings.Join(shapeNames(), ", ")+"); formats that want a calibration get a made-up one, for times only")
	c.Flags().StringVar(&f.batch, "batch", "1", "on a GPU: sequences decoded together; 0: as many as there is memory for")
	return c
}

// counts says which of the numbers are too small; no chunk means the default.
func (f *benchModelFlags) counts(c *cobra.Command) error {
	if f.steps < 1 || f.rounds < 1 || f.chunk < 1 && c.Flags().Changed("chunk") {
		return fmt.Errorf("--steps, --rounds and --chunk are at least 1")
	}
	return nil
}

func (f *benchModelFlags) run(c *cobra.Command, m *modelFlags) error {
	if f.device != "cpu" {
		return f.runGPU(c, m)
	}
	ops, level, err := f.backend(c)
	if err != nil {
		return err
	}
	defer ops.Close()
	o := bench.ModelOptions{Formats: formatList(f.formats), Steps: f.steps, Rounds: f.rounds, Chunk: cmp.Or(f.chunk, sched.StepTokens), Log: f.progress(c)}
	if o.Prompts, err = sizes("prompt", f.prompts); err == nil {
		o.Depths, err = sizes("depth", f.depths)
	}
	if err == nil {
		err = f.counts(c)
	}
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	files, err := m.open()
	if err != nil {
		return err
	}
	defer files.source.Close()
	kv := kvFlags{calibration: f.calibration}
	if o.Calibration, err = kv.readCalibration(files); err != nil {
		return err
	}
	if o.Model, err = model.Bind(files.config, files.source, ops); err != nil {
		return err
	}
	r, err := f.measure(c.Context(), o)
	if err != nil {
		return err
	}
	r.Name = files.name
	r.Machine = bench.NewMachine(ops.Threads(), level, version(), ops.Name())
	return f.print(c, r)
}

func (f *benchModelFlags) measure(ctx context.Context, o bench.ModelOptions) (*bench.ModelReport, error) {
	for _, n := range append(o.Prompts, o.Depths...) {
		if most := o.Model.Config.MaxContext - f.rounds*(f.steps+1); n > most {
			return nil, fmt.Errorf("%d tokens are more than the model's context of %d leaves beside what is decoded (%d)", n, o.Model.Config.MaxContext, most)
		}
	}
	return bench.Model(ctx, o)
}

// sizes reads a list of numbers of tokens.
func sizes(flag, s string) ([]int, error) {
	var all []int
	for _, text := range list(s) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n == 0 && flag == "prompt" {
			return nil, fmt.Errorf("--%s %q: it is a list of numbers of tokens, split by commas, or none", flag, s)
		}
		all = append(all, n)
	}
	return all, nil
}
