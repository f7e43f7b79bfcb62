package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/bench/serving"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/workload"
)

// benchServeFlags say what is asked of whom, and over which link.
type benchServeFlags struct {
	node nodeFlags
	logs logFlags

	trace, workload       string
	input, output         int
	servegen              workload.ServeGenOptions
	limits                workload.Limits
	rate, stretch         float64
	concurrency, rounds   int
	seed                  uint64
	formats, progressive  string
	chosen                bool // formats were: none of them is left out
	link, linkRatio       float64
	routing               string
	ttft, tpot, timeout   time.Duration
	endpoints             []string
	endpointKey, endModel string
	json, csv, html       string
	quiet                 bool
}

// newBenchServe is terse bench serve.
func newBenchServe() *cobra.Command {
	var f benchServeFlags
	names, what := workload.Kinds()
	c := &cobra.Command{
		Use:   "serve",
		Short: "Replay a workload and compare KV formats, or other servers",
		Long: `Sends a workload to one cluster a KV format (a prefill and a decode worker, joined by a
link of the chosen speed), to a split float16 cluster and to one where nothing is split,
and prints job completion time (JCT), time to first token (TTFT), time per output token
(TPOT), inter-token latency (ITL), goodput, and where the time went. All take turns on
the same requests. Everything runs on this machine; the link is a token bucket in front
of the decode worker.

Workloads are recorded traces (--trace: Mooncake JSONL, Azure or BurstGPT CSV, Vidur's
lengths, a ServeGen directory) or synthetic (--workload):
  ` + strings.Join(what, "\n  ") + `
Longer prompts than the model's context are cut; --length-scale shortens all of them.

--link-ratio R makes the link as slow as a larger model finds its own: float16 KV of a
mean request takes R times as long to move as the request takes to compute, both
measured here first. --endpoint measures servers that run elsewhere instead.`,
		Example: `  terse bench serve --workload summarise --link-ratio 10
  terse bench serve --trace conversation_trace.jsonl --length-scale 0.25 --requests 40 --kv hq3,hq2
  terse bench serve --workload summarise --link 1 --kv hq2,hq2+rotate=off,hq2+mean=off,hack,hack+se=off
  terse bench serve --endpoint http://10.0.0.1:8080/v1 --endpoint http://10.0.0.2:8000/v1 --workload complete --rate 2`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	flags := c.Flags()
	f.node.model.register(c)
	f.node.engine.register(c)
	f.logs.register(c)
	flags.StringVar(&f.node.kv.calibration, "calibration", "", "calibration file of the model, 'none' for none (default: as terse serve)")
	flags.StringVar(&f.formats, "kv", "hq4,hq3,hq2,int4,hack", "KV formats to compare, split by commas (options of one format by '+': hq2+sym=off)")
	flags.StringVar(&f.progressive, "progressive", "off", "for formats with second planes, a cluster for each of: off, on, auto (with --slo-ttft), split by commas")
	flags.StringVar(&f.workload, "workload", names[1], "synthetic workload: "+strings.Join(names, ", "))
	flags.IntVar(&f.input, "input", 0, "or: tokens of every prompt")
	flags.IntVar(&f.output, "output", 64, "with --input: tokens of every answer")
	flags.StringVar(&f.trace, "trace", "", "recorded trace: a file, or a ServeGen directory")
	flags.DurationVar(&f.servegen.Start, "servegen-start", 0, "moment of a ServeGen recording to draw from")
	flags.IntVar(&f.limits.Count, "requests", 12, "requests to send, 0 for all")
	flags.IntVar(&f.limits.Skip, "skip", 0, "requests of the trace to leave out first")
	flags.Float64Var(&f.limits.Scale, "length-scale", 1, "factor on all lengths")
	flags.IntVar(&f.limits.MaxInput, "max-input", 0, "cut longer prompts off (default: what the context holds)")
	flags.IntVar(&f.limits.MaxOutput, "max-output", 0, "cut longer answers off (default: what the context holds)")
	flags.Float64Var(&f.rate, "rate", 0, "requests a second, arriving at random (Poisson)")
	flags.Float64Var(&f.stretch, "time-scale", 1, "factor on recorded arrivals: 2 halves the load")
	flags.IntVar(&f.concurrency, "concurrency", 0, "keep this many requests running, whatever their arrivals (default: 1 where nothing says when they arrive)")
	flags.IntVar(&f.rounds, "rounds", 3, "parts that the workload is cut into: in each, all take a turn")
	flags.Uint64Var(&f.seed, "seed", 1, "of lengths, arrivals and prompts")
	flags.Float64Var(&f.link, "link", 0, "speed of the link in Gb/s, 0 for as fast as this machine copies")
	flags.Float64Var(&f.linkRatio, "link-ratio", 0, "or: time to move a mean request's float16 KV over the time to compute it")
	flags.StringVar(&f.routing, "route", "split", "split: all prompts that can be; auto: those where terse serve would")
	flags.DurationVar(&f.ttft, "slo-ttft", 0, "longest TTFT of a request that counts as good, 0 for any")
	flags.DurationVar(&f.tpot, "slo-tpot", 0, "longest TPOT of a request that counts as good, 0 for any")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "longest that a request may take")
	flags.StringArrayVar(&f.endpoints, "endpoint", nil, "OpenAI API to measure instead, up to and including /v1; may be given several times")
	flags.StringVar(&f.endpointKey, "endpoint-key", "", "API key of the endpoints")
	flags.StringVar(&f.endModel, "endpoint-model", "", "model to ask the endpoints for (default: the first that they list)")
	flags.StringVar(&f.json, "json", "", "also write everything to this file")
	flags.StringVar(&f.csv, "csv", "", "also write a line a request to this file")
	flags.StringVar(&f.html, "html", "", "also write a page with plots to this file")
	flags.BoolVar(&f.quiet, "quiet", false, "do not show progress on standard error")
	return c
}

func (f *benchServeFlags) check(c *cobra.Command) error {
	bad := func(format string, args ...any) error {
		return usageError{c.CommandPath(), fmt.Errorf(format, args...)}
	}
	switch {
	case f.link < 0 || f.linkRatio < 0 || f.rate < 0 || f.concurrency < 0 || f.ttft < 0 || f.tpot < 0 || f.timeout < 0:
		return bad("--link, --link-ratio, --rate, --concurrency, --slo-ttft, --slo-tpot and --timeout cannot be negative")
	case f.link > 0 && f.linkRatio > 0:
		return bad("--link and --link-ratio both say how fast the link is: give one")
	case f.rate > 0 && f.concurrency > 0:
		return bad("--rate and --concurrency both say when requests arrive: give one")
	case f.rounds < 1:
		return bad("--rounds is %d: it must be positive", f.rounds)
	case slices.ContainsFunc(f.ways(), func(p route.Progressive) bool { return !p.Known() }):
		return bad("--progressive %q: choose of on, off and auto, split by commas", f.progressive)
	case slices.Contains(f.ways(), route.ProgressiveAuto) && f.ttft == 0:
		return bad("--progressive auto decides by --slo-ttft: give one")
	case f.routing != "split" && f.routing != "auto":
		return bad("--route %q: choose split or auto", f.routing)
	case f.trace != "" && c.Flags().Changed("workload"), f.input != 0 && (f.trace != "" || c.Flags().Changed("workload")):
		return bad("--workload, --trace and --input all say what is asked: give one")
	case f.input < 0 || f.output < 1:
		return bad("--input %d, --output %d: prompts and answers have at least one token", f.input, f.output)
	case len(f.endpoints) > 0 && (f.link > 0 || f.linkRatio > 0 || c.Flags().Changed("kv")):
		return bad("--endpoint measures servers as they are: --kv, --link and --link-ratio are not for it")
	}
	return f.node.engine.check(c)
}

// ways are how formats with second planes are to be served.
func (f *benchServeFlags) ways() []route.Progressive {
	var ways []route.Progressive
	for word := range strings.SplitSeq(f.progressive, ",") {
		ways = append(ways, route.Progressive(word))
	}
	return ways
}

func (f *benchServeFlags) run(c *cobra.Command) error {
	if err := f.check(c); err != nil {
		return err
	}
	f.chosen = c.Flags().Changed("kv")
	log, err := f.logs.logger(c.ErrOrStderr())
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	w, err := f.readWorkload()
	if err != nil {
		return err
	}
	files, measure, done, err := f.open(c, log)
	if err != nil {
		return err
	}
	defer done()
	f.limits.MaxTokens = files.config.MaxContext
	if ctx := f.node.engine.ctx; ctx > 0 {
		f.limits.MaxTokens = min(f.limits.MaxTokens, ctx)
	}
	cut, err := w.Limit(f.limits)
	if err != nil {
		return err
	}
	if err := f.arrivals(w); err != nil {
		return err
	}
	say := func(format string, args ...any) {
		if !f.quiet {
			fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...)
		}
	}
	if cut > 0 {
		say("%d of %d requests are cut to fit", cut, len(w.Requests))
	}
	prompts, err := promptSource(files, f.seed)
	if err != nil {
		return err
	}
	o := serving.Options{Workload: w, Prompts: prompts, Rounds: f.rounds, Concurrency: f.concurrency, Timeout: f.timeout}
	if !f.quiet {
		o.Progress = func(done float64) {
			fmt.Fprintf(c.ErrOrStderr(), "\rreplaying %s %3.0f %%", w.Name, 100*done)
			if done == 1 {
				fmt.Fprintln(c.ErrOrStderr())
			}
		}
	}
	r, err := measure(o, say)
	if err != nil {
		return err
	}
	r.Judge(serving.SLO{TTFT: f.ttft.Seconds(), TPOT: f.tpot.Seconds()})
	return f.write(c.OutOrStdout(), r)
}

// measurer replays at the targets of a run.
type measurer = func(serving.Options, func(string, ...any)) (*serving.Report, error)

// open makes ready what is measured. Endpoints elsewhere need no weights here, only
// a tokenizer for their prompts.
func (f *benchServeFlags) open(c *cobra.Command, log *slog.Logger) (*files, measurer, func(), error) {
	if len(f.endpoints) > 0 {
		m, err := f.node.model.open()
		if err != nil {
			return nil, nil, nil, err
		}
		return m, func(o serving.Options, _ func(string, ...any)) (*serving.Report, error) {
			return f.measureRemote(c.Context(), m, o)
		}, func() { m.source.Close() }, nil
	}
	f.node.kv.format, f.node.progressive = serving.SplitF16, string(route.ProgressiveOff)
	n, err := f.node.load(log)
	if err != nil {
		return nil, nil, nil, err
	}
	return n.files, func(o serving.Options, say func(string, ...any)) (*serving.Report, error) {
		return f.measure(c.Context(), n, o, say)
	}, n.close, nil
}

func (f *benchServeFlags) readWorkload() (*workload.Workload, error) {
	if f.trace != "" {
		f.servegen.Rate, f.servegen.Seed = f.rate, f.seed
		return workload.Open(f.trace, f.servegen)
	}
	if f.limits.Count == 0 {
		return nil, errors.New("--requests is 0: a synthetic workload has no end; say how many")
	}
	if f.input > 0 {
		return workload.Fixed(f.limits.Skip+f.limits.Count, f.input, f.output)
	}
	return workload.Synthetic(f.workload, f.limits.Skip+f.limits.Count, f.seed)
}

// arrivals decides when requests are sent.
func (f *benchServeFlags) arrivals(w *workload.Workload) error {
	if f.rate > 0 {
		return w.Poisson(f.rate, f.seed)
	}
	if !w.Arrivals && f.concurrency == 0 {
		f.concurrency = 1
	}
	return w.Stretch(f.stretch)
}

// write prints the report and writes the files asked for.
func (f *benchServeFlags) write(out io.Writer, r *serving.Report) error {
	fmt.Fprintf(out, "%s\n\n%s", r.Title(), r.Markdown())
	for _, file := range []struct {
		path  string
		write func(io.Writer) error
	}{{f.json, r.JSON}, {f.csv, r.CSV}, {f.html, r.HTML}} {
		if file.path == "" {
			continue
		}
		to, err := os.Create(file.path)
		if err != nil {
			return fmt.Errorf("cannot write the report: %w", err)
		}
		if err := errors.Join(file.write(to), to.Close()); err != nil {
			return fmt.Errorf("cannot write the report: %w", err)
		}
	}
	return nil
}

// measureRemote replays the workload at the servers of --endpoint.
func (f *benchServeFlags) measureRemote(ctx context.Context, m *files, o serving.Options) (*serving.Report, error) {
	tok, err := m.tokenizer()
	if err != nil {
		return nil, err
	}
	for _, url := range f.endpoints {
		t := serving.Target{Name: url, URL: url, Key: f.endpointKey, Model: f.endModel, Text: textOf(tok)}
		if t.Model == "" {
			if t.Model, err = serving.FirstModel(ctx, http.DefaultClient, &t); err != nil {
				return nil, err
			}
		}
		o.Targets = append(o.Targets, t)
	}
	r, err := serving.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	r.Version, r.Model = version(), o.Targets[0].Model
	return r, nil
}
