package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/bench"
	"github.com/terse-llm/terse/bench/serving"
	"github.com/terse-llm/terse/eval"
	levels "github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/tokenizer"
	"github.com/terse-llm/terse/transfer"
	"github.com/terse-llm/terse/transfer/tcp"
	"github.com/terse-llm/terse/workload"
)

// colocated names the cluster where nothing is split.
const colocated = "f16, colocated"

// measure replays the workload at clusters on this machine.
func (f *benchServeFlags) measure(ctx context.Context, n *node, o serving.Options, say func(string, ...any)) (*serving.Report, error) {
	var r *serving.Report
	link := &serving.Link{}
	clusters, err := f.clusters(ctx, n, link)
	defer clusters.close()
	if err != nil {
		return nil, err
	}
	err = clusters.run(ctx, func(ctx context.Context) error {
		o.Targets = clusters.targets
		rate, what, err := f.linkRate(ctx, n, o)
		if err != nil {
			return err
		}
		link.SetRate(rate)
		say("link: %s", what)
		if r, err = serving.Run(ctx, o); err != nil {
			return err
		}
		r.Link, r.LinkRate = what, rate
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.Machine = bench.NewMachine(threadsOr(f.node.engine.threads), levels.Best(), version(), n.backend()).String()
	r.Version, r.Model = version(), n.files.name
	return r, nil
}

// linkRate is the link's rate in bytes a second, and in words.
func (f *benchServeFlags) linkRate(ctx context.Context, n *node, o serving.Options) (float64, string, error) {
	switch {
	case f.link > 0:
		return f.link * 1e9 / 8, fmt.Sprintf("%g Gb/s", f.link), nil
	case f.linkRatio == 0:
		return 0, "as fast as this machine copies", nil
	}
	probe := o
	probe.Progress, probe.Rounds, probe.Concurrency = nil, 1, 1
	probe.Targets = o.Targets[:1]
	probe.Workload = meanRequest(o.Workload)
	probe.Prompts = &serving.Prompts{Source: o.Prompts.Source, Seed: o.Prompts.Seed + 1}
	r, err := serving.Run(ctx, probe)
	if err != nil {
		return 0, "", err
	}
	row := r.Rows[0]
	if row.Failed > 0 || row.Parts == nil {
		return 0, "", fmt.Errorf("cannot set the link: the request to measure failed: %s", r.Requests[0].Error)
	}
	compute := row.Parts.Prefill + row.Parts.Decode
	bytes := float64(transfer.F16Bytes(n.g, probe.Workload.Requests[0].Input))
	rate := bytes / (f.linkRatio * compute)
	return rate, fmt.Sprintf("%.3g Gb/s: float16 KV of a mean request (%d tokens, %.1f MiB) takes %g times the %.2f s to compute it",
		rate*8/1e9, probe.Workload.Requests[0].Input, bytes/(1<<20), f.linkRatio, compute), nil
}

// meanRequest is three requests of the workload's mean lengths.
func meanRequest(w *workload.Workload) *workload.Workload {
	input, output := 0, 0
	for _, r := range w.Requests {
		input, output = input+r.Input, output+r.Output
	}
	n := len(w.Requests)
	r := workload.Request{Input: max(1, input/n), Output: max(1, output/n)}
	return &workload.Workload{Name: w.Name, BlockTokens: w.BlockTokens, Requests: []workload.Request{r, r, r}}
}

// clusterSet is a running cluster a target.
type clusterSet struct {
	shares  int // workers of all clusters together
	targets []serving.Target
	parts   []func(context.Context) error
	ready   []func(context.Context) error
	closers []func()
}

func (s *clusterSet) close() {
	for _, f := range slices.Backward(s.closers) {
		f()
	}
}

// run keeps all clusters running while work does.
func (s *clusterSet) run(ctx context.Context, work func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := append(slices.Clone(s.parts), func(ctx context.Context) error {
		defer cancel()
		for _, ready := range s.ready {
			if err := ready(ctx); err != nil {
				return err
			}
		}
		return work(ctx)
	})
	return together(ctx, parts...)
}

// clusters makes colocated and split float16, and a split cluster a format.
// Float16's colocated one comes first: it measures how long computing takes.
func (f *benchServeFlags) clusters(ctx context.Context, n *node, link *serving.Link) (*clusterSet, error) {
	s := &clusterSet{}
	split := stackOptions{roles: []terse.Role{terse.RolePrefill, terse.RoleDecode}, dial: link.Over(tcp.Dialer(nil)), ttft: f.ttft}
	if f.routing == "split" {
		split.localBelow = -1
	}
	formats := []string{serving.SplitF16}
	for _, format := range formatList(f.formats) {
		if slices.Contains(formats, format) {
			continue
		}
		switch why, err := n.lacks(format); {
		case err != nil:
			return s, err
		case why == nil:
			formats = append(formats, format)
		case f.chosen:
			return s, why
		default:
			n.log.Warn("a format is left out", "why", why)
		}
	}
	s.shares = 1 + len(formats)*len(f.ways())*len(split.roles)
	if err := s.add(ctx, n, colocated, serving.SplitF16, stackOptions{roles: []terse.Role{terse.RoleBoth}}); err != nil {
		return s, err
	}
	for _, format := range formats {
		if err := f.addWays(ctx, s, n, format, split); err != nil {
			return s, err
		}
	}
	return s, nil
}

// addWays adds a cluster of a format for each way that its second planes may come,
// and one with all planes in any case, for the others to be held against.
func (f *benchServeFlags) addWays(ctx context.Context, s *clusterSet, n *node, format string, o stackOptions) error {
	if err := s.add(ctx, n, format, format, o); err != nil {
		return err
	}
	kv := n.flags.kv
	kv.format = format
	g, _, err := kv.geometry(n.files)
	if err != nil {
		return err
	}
	for _, o.progressive = range f.ways() {
		if o.progressive == route.ProgressiveOff || transfer.SecondBytes(g, 4096) == 0 {
			continue
		}
		if err := s.add(ctx, n, fmt.Sprintf("%s, progressive %s", format, o.progressive), format, o); err != nil {
			return err
		}
		s.targets[len(s.targets)-1].Whole = format
	}
	return nil
}

// add builds a cluster and serves it on a port of its own.
func (s *clusterSet) add(ctx context.Context, n *node, name, format string, o stackOptions) error {
	with, err := n.with(format, s.shares)
	if err != nil {
		return err
	}
	stack, err := with.stack(ctx, natsFlags{cluster: "terse"}, o)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, stack.close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.closers = append(s.closers, func() { l.Close() })
	server, err := n.files.newServer(stack.dispatcher, with.cfg.MaxContext, "", &apiFlags{}, n.log)
	if err != nil {
		return err
	}
	s.parts = append(s.parts, stack.run, func(ctx context.Context) error { return serveHTTP(ctx, l, server.Handler(), drain) })
	s.ready = append(s.ready, stack.ready)
	s.targets = append(s.targets, serving.Target{
		Name: name, URL: "http://" + l.Addr().String() + "/v1", Model: n.files.name,
		HeldKV: func() (held int64) {
			for _, e := range stack.engines {
				held += e.Load().KVUsed
			}
			return held
		},
	})
	return nil
}

// promptSource is the built-in books in the model's tokens.
func promptSource(m *files, seed uint64) (*serving.Prompts, error) {
	tok, err := m.tokenizer()
	if err != nil {
		return nil, err
	}
	docs, err := eval.Text("books")
	if err != nil {
		return nil, err
	}
	ids, err := tok.Encode(strings.Join(docs, "\n"), tokenizer.EncodeOptions{})
	if err != nil {
		return nil, err
	}
	return &serving.Prompts{Source: ids, Seed: seed}, nil
}

func textOf(tok *tokenizer.Tokenizer) func([]terse.Token) string {
	return func(ids []terse.Token) string { return tok.Decode(ids, false) }
}
