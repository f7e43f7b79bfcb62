package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/gateway"
	"github.com/terse-llm/terse/worker"
)

// newWorker is terse worker: one role of a cluster, as a process.
func newWorker() *cobra.Command {
	var n nodeFlags
	var nats natsFlags
	var logs logFlags
	var secure secureFlags
	var role string
	var w worker.Config
	c := &cobra.Command{
		Use:   "worker --role prefill|decode|both --nats URL",
		Short: "Run one worker of a cluster",
		Long: `Runs one worker. Prefill workers compute prompts and serve their coded KV on a
data port; decode workers fetch it from there and generate. All workers of a
cluster need the same --model, --kv and calibration, and the same
--cluster-key-file where the data ports face a network.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := n.engine.check(c); err != nil {
				return err
			}
			log, err := logs.logger(c.ErrOrStderr())
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			r := terse.Role(role)
			if !r.Prefills() && !r.Decodes() {
				return usageError{c.CommandPath(), fmt.Errorf("--role %q: choose prefill, decode or both", role)}
			}
			if places, _ := n.engine.device.places(); len(places) > 1 {
				return usageError{c.CommandPath(), fmt.Errorf("--device %q: a worker computes on one device", n.engine.device.names)}
			}
			if nats.url == "" {
				return usageError{c.CommandPath(), fmt.Errorf("--nats is needed: the URL of the cluster's NATS server, such as nats://10.0.0.1:4222")}
			}
			if err := checkDrain(w.Drain); err != nil {
				return usageError{c.CommandPath(), err}
			}
			if w.Replicas < 0 || w.Replicas > 0 && !r.Decodes() {
				return usageError{c.CommandPath(), fmt.Errorf("--replicas %d: decode workers have replicas kept, none or more of each request", w.Replicas)}
			}
			if w.Key, w.TLS, err = secure.load(w.DataListen); err != nil {
				return err
			}
			w.Role, w.ID = r, orElse(w.ID, workerID(r))
			return runWorker(c.Context(), &n, nats, log, w)
		},
	}
	n.register(c)
	nats.register(c, "URL of the cluster's NATS server")
	logs.register(c)
	c.Flags().StringVar(&role, "role", "both", "prefill, decode or both")
	secure.register(c)
	c.Flags().DurationVar(&w.Drain, "drain", drain, "how long what runs may go on when this worker is asked to stop; then other workers go on with it")
	c.Flags().IntVar(&w.Replicas, "replicas", 0, "decode workers that each keep a replica of the KV of what this one decodes, and go on with it where this one is lost (they fetch it from the data port)")
	c.Flags().StringVar(&w.ID, "id", "", "name of this worker in the cluster (default: made up)")
	c.Flags().StringVar(&w.DataListen, "data-listen", "127.0.0.1:0", "address of the KV data port (roles that prefill, and with --replicas)")
	c.Flags().StringVar(&w.DataAdvertise, "data-advertise", "", "address by which other workers reach the data port (default: the listen address, or the one towards NATS)")
	return c
}

func runWorker(ctx context.Context, f *nodeFlags, nats natsFlags, log *slog.Logger, c worker.Config) error {
	n, err := f.load(log)
	if err != nil {
		return err
	}
	defer n.close()
	conn, err := cluster.Connect(ctx, cluster.Options{URL: nats.url, Cluster: nats.cluster, Name: c.ID, Logger: log})
	if err != nil {
		return err
	}
	defer conn.Close()
	c.Conn, c.DataAdvertise = conn, orElse(c.DataAdvertise, advertised(c.DataListen, nats.url))
	w, err := n.newWorker(c)
	if err != nil {
		return err
	}
	log.Info("worker ready", "id", c.ID, "role", c.Role, "model", n.files.name, "kv", n.g.Format.Name,
		"kv_memory", formatBytes(n.cfg.KVMemory), "data", w.DataAddr(), "backend", n.backend())
	return w.Run(ctx)
}

// newGateway is terse gateway: the API of a cluster, as a process.
func newGateway() *cobra.Command {
	var m modelFlags
	var api apiFlags
	var nats natsFlags
	var logs logFlags
	var maxContext int
	c := &cobra.Command{
		Use:   "gateway --nats URL",
		Short: "Run the OpenAI API of a cluster",
		Long: `Runs the OpenAI API over the workers of a cluster. It needs the model's tokenizer
and configuration (--model), never its weights.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := logs.logger(c.ErrOrStderr())
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			if nats.url == "" {
				return usageError{c.CommandPath(), fmt.Errorf("--nats is needed: the URL of the cluster's NATS server, such as nats://10.0.0.1:4222")}
			}
			return runGateway(c.Context(), &m, &api, nats, maxContext, log)
		},
	}
	m.register(c)
	m.registerText(c)
	api.register(c)
	nats.register(c, "URL of the cluster's NATS server")
	logs.register(c)
	c.Flags().IntVar(&maxContext, "ctx", 0, "most tokens of prompt and answer together (default: the model's context)")
	return c
}

func runGateway(ctx context.Context, m *modelFlags, api *apiFlags, nats natsFlags, maxContext int, log *slog.Logger) error {
	f, err := m.open()
	if err != nil {
		return err
	}
	defer f.source.Close()
	if err := f.checkContext(maxContext); err != nil {
		return err
	}
	l, err := api.bind()
	if err != nil {
		return err
	}
	defer l.Close()
	conn, err := cluster.Connect(ctx, cluster.Options{URL: nats.url, Cluster: nats.cluster, Name: "gateway", Logger: log})
	if err != nil {
		return err
	}
	defer conn.Close()
	view, err := conn.Watch(ctx)
	if err != nil {
		return err
	}
	defer view.Close()
	served, err := f.served()
	if err != nil {
		return err
	}
	d := gateway.NewCluster(conn, view, gateway.ClusterOptions{Model: served, LocalBelow: api.localBelow, TTFT: api.ttft, Logger: log})
	if err := d.Settle(ctx); err != nil {
		return err
	}
	s, err := f.newServer(d, maxContext, m.template, api, log)
	if err != nil {
		return err
	}
	log.Info("gateway ready", "api", "http://"+l.Addr().String()+"/v1", "model", f.name, "nats", nats.url)
	return serveHTTP(ctx, l, s.Handler(), api.drain)
}
