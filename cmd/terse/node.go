package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/model/device"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/sched"
	"github.com/terse-llm/terse/worker"
)

// engineFlags size a worker's engine.
type engineFlags struct {
	kvMemory                  byteSize
	ctx, threads, seqs, chunk int
	device                    deviceFlag
}

func (f *engineFlags) register(c *cobra.Command) {
	c.Flags().Var(&f.kvMemory, "kv-memory", "memory for a worker's KV cache (auto: what --max-seqs full contexts need, a quarter of the RAM at most; on a GPU, two fifths of what the weights leave)")
	f.device.register(c)
	c.Flags().IntVar(&f.ctx, "ctx", 0, "most tokens of prompt and answer together (default: the model's context)")
	c.Flags().IntVar(&f.threads, "threads", 0, "cores to compute on (default: all)")
	c.Flags().IntVar(&f.seqs, "max-seqs", 16, "requests computed at a time")
	c.Flags().IntVar(&f.chunk, "chunk", 0, chunkUsage("tokens of one engine step: longer prompts are computed in chunks"))
}

// chunkUsage is the help of a --chunk flag whose zero means the default.
func chunkUsage(what string) string {
	return fmt.Sprintf("%s (default: %d, on a GPU %d)", what, sched.StepTokens, device.StepTokens)
}

func (f *engineFlags) check(c *cobra.Command) error {
	for name, v := range map[string]int{"ctx": f.ctx, "threads": f.threads, "max-seqs": f.seqs, "chunk": f.chunk} {
		if v < 0 || v == 0 && c.Flags().Changed(name) {
			return usageError{c.CommandPath(), fmt.Errorf("--%s is %d: it must be positive", name, v)}
		}
	}
	if _, err := f.device.places(); err != nil {
		return usageError{c.CommandPath(), err}
	}
	return nil
}

// logFlags choose what is logged and how.
type logFlags struct{ level, format string }

func (f *logFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	c.Flags().StringVar(&f.format, "log-format", "text", "text or json")
}

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: choose debug, info, warn or error", f.level)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: choose text or json", f.format)
}

// natsFlags say which cluster to join.
type natsFlags struct{ url, cluster string }

func (f *natsFlags) register(c *cobra.Command, usage string) {
	c.Flags().StringVar(&f.url, "nats", "", usage)
	c.Flags().StringVar(&f.cluster, "cluster", "terse", "name of the cluster on that server")
}

// nodeFlags are everything a worker needs.
type nodeFlags struct {
	model  modelFlags
	kv     kvFlags
	engine engineFlags

	progressive string
}

func (f *nodeFlags) register(c *cobra.Command) {
	f.model.register(c)
	f.kv.register(c)
	f.engine.register(c)
	c.Flags().StringVar(&f.progressive, "progressive", "auto", "decode on the top planes of hq3, hq4 and hq2+ while the second ones still come: on, off, or auto where a request would miss --slo-ttft otherwise")
}

// node is a loaded model with its KV format, ready to make engines of.
type node struct {
	flags *nodeFlags
	files *files
	log   *slog.Logger
	cal   *quant.Calibration // nil where the model has none
	g     *quant.Geometry
	cfg   engine.Config // but for the runner, of which every engine has its own

	backends []*backend // one, or that of prefill and that of decode
}

// close lets go of the model; nothing may be using it.
func (n *node) close() {
	n.closeBackends()
	n.files.source.Close()
}

// load opens and binds the model.
func (f *nodeFlags) load(log *slog.Logger) (*node, error) {
	m, err := f.model.open()
	if err != nil {
		return nil, err
	}
	if err := m.checkContext(f.engine.ctx); err != nil {
		return nil, errors.Join(err, m.source.Close())
	}
	g, cal, err := f.kv.geometry(m)
	if err != nil {
		return nil, errors.Join(err, m.source.Close())
	}
	n := &node{flags: f, files: m, log: log, g: g, cal: cal}
	n.cfg = engine.Config{Logger: log, MaxSeqs: f.engine.seqs, MaxContext: f.engine.ctx}
	if err := n.open(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// with is the same model with another KV format, for one of shares workers that
// the memory must do for. It lives in n, which closes it.
func (n *node) with(format string, shares int) (*node, error) {
	other := *n
	kv := n.flags.kv
	kv.format = format
	var err error
	if other.g, other.cal, err = kv.geometry(n.files); err != nil {
		return nil, err
	}
	other.cfg.KVMemory = n.flags.kvMemory(other.g, n.files.config.MaxContext, n.room()/int64(shares))
	return &other, nil
}

// lacks says why the node's devices cannot compute with a KV format; nil where they
// can.
func (n *node) lacks(format string) (why, err error) {
	other, err := n.with(format, 1)
	if err != nil {
		return nil, err
	}
	return other.supported(), nil
}

// newWorker makes an engine and the worker around it. Of c, the caller says what
// is the worker's own: who it is, and how it is reached.
func (n *node) newWorker(c worker.Config) (*worker.Worker, error) {
	if c.Progressive == "" {
		c.Progressive = route.Progressive(n.flags.progressive)
	}
	if !c.Progressive.Known() {
		return nil, fmt.Errorf("--progressive %q: choose on, off or auto", n.flags.progressive)
	}
	run, err := n.newRunner(c.Role)
	if err != nil {
		return nil, err
	}
	cfg, b := n.cfg, n.backendOf(c.Role)
	if cfg.Runner, cfg.StepTokens = run, n.stepTokens(b); b.gpu != nil {
		cfg.StepTime = engine.StepTime // a GPU finishes what it has begun
	}
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	c.Engine, c.Geometry, c.Calibration = e, n.g, n.cal
	if c.Text, err = n.files.textIdentity(); err != nil {
		return nil, err
	}
	c.Model, c.ModelHash, c.VocabSize = n.files.name, n.files.identity(), n.files.config.VocabSize
	c.Numerics = run.Numerics()
	c.Logger = n.log.With("worker", c.ID)
	c.Drain = cmp.Or(c.Drain, drain)
	return worker.New(c)
}

// workerID is unique enough to tell workers of one cluster apart.
func workerID(role terse.Role) string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	var b [3]byte
	rand.Read(b[:])
	clean := make([]byte, 0, 32)
	for i := 0; i < len(host) && len(clean) < 32; i++ {
		if c := host[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			clean = append(clean, c)
		}
	}
	return fmt.Sprintf("%s-%s-%s", role, clean, hex.EncodeToString(b[:]))
}

// advertised turns a data port that listens on all addresses into the address
// by which this machine reaches the NATS server, as other workers likely reach
// it by the same. A concrete listen address advertises itself ("").
func advertised(listen, natsURL string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port == "0" {
		return ""
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return ""
	}
	u, err := url.Parse(natsURL)
	if err != nil || u.Host == "" {
		return ""
	}
	target := u.Host
	if u.Port() == "" {
		target = net.JoinHostPort(u.Hostname(), "4222")
	}
	conn, err := net.Dial("udp", target) // sends nothing: it only picks a route
	if err != nil {
		return ""
	}
	defer conn.Close()
	mine, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		return ""
	}
	return net.JoinHostPort(mine, port)
}

// together runs parts until one fails or ctx ends, then stops the others and
// returns the first failure.
func together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(parts))
	for _, p := range parts {
		go func() { errs <- p(ctx) }()
	}
	var first error
	for range parts {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
		cancel()
	}
	return first
}
