package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/gateway"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/worker"
)

// newServe is terse serve: everything in one process.
func newServe() *cobra.Command {
	var n nodeFlags
	var api apiFlags
	var nats natsFlags
	var logs logFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve a model: gateway, prefill worker, decode worker and NATS in one process",
		Long: `Serves a model through an OpenAI API. One process holds the gateway, a prefill
worker, a decode worker and an embedded NATS server; prompts are prefilled by one
worker and their coded KV crosses to the other, as between machines.`,
		Example: `  terse serve
  terse serve --model ./Llama-3.2-1B-Instruct --kv hq2 --ctx 32768
  terse serve --listen 0.0.0.0:8080 --api-key SECRET`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := n.engine.check(c); err != nil {
				return err
			}
			log, err := logs.logger(c.ErrOrStderr())
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			return serve(c.Context(), &n, &api, nats, log, c.OutOrStdout())
		},
	}
	n.register(c)
	n.model.registerText(c)
	api.register(c)
	nats.register(c, "URL of an external NATS server (default: an embedded one)")
	logs.register(c)
	return c
}

func serve(ctx context.Context, f *nodeFlags, api *apiFlags, nats natsFlags, log *slog.Logger, out io.Writer) error {
	l, err := api.bind() // first: a port in use should not cost loading a model
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := f.start(ctx, nats, api, log)
	if err != nil {
		return err
	}
	defer s.close()
	g, err := s.node.files.newServer(s.dispatcher, s.node.cfg.MaxContext, f.model.template, api, log)
	if err != nil {
		return err
	}
	return together(ctx, s.run, func(ctx context.Context) error {
		if err := s.ready(ctx); err != nil {
			return err
		}
		fmt.Fprintf(out, "Serving %s with KV format %s at http://%s/v1 (Ctrl-C stops)\n", s.node.files.name, s.node.g.Format.Name, l.Addr())
		return serveHTTP(ctx, l, g.Handler(), api.drain)
	})
}

// stack is a cluster in one process: NATS, its workers, and the dispatcher over
// them.
type stack struct {
	node       *node
	engines    []*engine.Engine
	view       *cluster.View
	dispatcher *gateway.Cluster
	parts      []func(context.Context) error
	closers    []func()
}

// start loads the model and builds the stack; run starts its workers. Requests are
// to keep a time to the first token; 0 = none.
func (f *nodeFlags) start(ctx context.Context, nats natsFlags, api *apiFlags, log *slog.Logger) (*stack, error) {
	n, err := f.load(log)
	if err != nil {
		return nil, err
	}
	s, err := n.stack(ctx, nats, stackOptions{roles: []terse.Role{terse.RolePrefill, terse.RoleDecode}, localBelow: api.localBelow, ttft: api.ttft, drain: api.drain})
	if err != nil {
		n.close()
		return nil, err
	}
	s.closers = slices.Insert(s.closers, 0, n.close)
	return s, nil
}

// dialer connects to a worker's data port.
type dialer = func(ctx context.Context, addr string) (net.Conn, error)

// stackOptions are what stacks differ in.
type stackOptions struct {
	roles       []terse.Role      // of the workers
	localBelow  int               // see route.Ask
	ttft        time.Duration     // see gateway.ClusterOptions
	progressive route.Progressive // of decode workers; "" = as the flag says
	dial        dialer            // see worker.Config
	drain       time.Duration     // of the workers; 0 = as by default
}

// stack builds a cluster around the node, which must outlive it.
func (n *node) stack(ctx context.Context, nats natsFlags, o stackOptions) (_ *stack, err error) {
	s := &stack{node: n}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	options := cluster.Options{URL: nats.url, Cluster: nats.cluster, Logger: n.log}
	if nats.url == "" {
		server, err := cluster.StartServer(cluster.ServerOptions{InProcess: true, Logger: n.log})
		if err != nil {
			return nil, err
		}
		s.onClose(server.Shutdown)
		options.Server = server
	}
	for _, role := range o.roles {
		if err := s.addWorker(ctx, role, options, o); err != nil {
			return nil, err
		}
	}
	conn, err := s.connect(ctx, options, "gateway")
	if err != nil {
		return nil, err
	}
	if s.view, err = conn.Watch(ctx); err != nil {
		return nil, err
	}
	s.onClose(s.view.Close)
	served, err := n.files.served()
	if err != nil {
		return nil, err
	}
	s.dispatcher = gateway.NewCluster(conn, s.view, gateway.ClusterOptions{Model: served, LocalBelow: o.localBelow, TTFT: o.ttft, Logger: n.log})
	return s, nil
}

func (s *stack) onClose(f func()) { s.closers = append(s.closers, f) }

func (s *stack) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
	s.closers = nil
}

func (s *stack) connect(ctx context.Context, o cluster.Options, name string) (*cluster.Conn, error) {
	o.Name = name
	conn, err := cluster.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	s.onClose(conn.Close)
	return conn, nil
}

func (s *stack) addWorker(ctx context.Context, role terse.Role, o cluster.Options, how stackOptions) error {
	id := workerID(role)
	conn, err := s.connect(ctx, o, id)
	if err != nil {
		return err
	}
	w, err := s.node.newWorker(worker.Config{ID: id, Role: role, Conn: conn, DataListen: "127.0.0.1:0", Dial: how.dial, Progressive: how.progressive, Drain: how.drain})
	if err != nil {
		return err
	}
	s.engines = append(s.engines, w.Engine())
	s.parts = append(s.parts, w.Run)
	return nil
}

// run is the workers' life.
func (s *stack) run(ctx context.Context) error { return together(ctx, s.parts...) }

// ready waits until both workers are known to the dispatcher.
func (s *stack) ready(ctx context.Context) error {
	return s.view.Wait(ctx, func(members []cluster.Member) bool { return len(members) >= len(s.parts) })
}
