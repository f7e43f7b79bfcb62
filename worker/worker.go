package worker

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/cluster"
	"github.com/terse-llm/terse/engine"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/route"
	"github.com/terse-llm/terse/transfer"
	"github.com/terse-llm/terse/transfer/tcp"
)

// Config is what a worker is made of.
type Config struct {
	ID          string
	Role        terse.Role
	Conn        *cluster.Conn
	Engine      *engine.Engine
	Geometry    *quant.Geometry
	Calibration *quant.Calibration // nil where there is none
	Model       string
	ModelHash   [32]byte
	Text        string // identity of the model's tokenizer and chat template, see cluster.Member
	VocabSize   int
	Progressive route.Progressive // whether decoding begins while second planes still come; "" = off
	Numerics    string            // what computes KV here, see transfer.Hello
	Replicas    int               // decode workers that keep a replica of each request decoded here
	Logger      *slog.Logger

	// DataListen is where a worker that prefills, or has replicas kept, serves KV (host:port, port 0 for
	// any); DataAdvertise is the address others reach it at, if that differs.
	DataListen, DataAdvertise string
	Key                       []byte      // of the cluster; nil where peers need none
	TLS                       *tls.Config // of data connections; nil = none
	// Dial reaches prefill workers' data ports; nil = over TCP, with TLS.
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	Timeouts transfer.Timeouts
	Drain    time.Duration // how long jobs and prefills may go on after ctx ends
}

// Worker is a node; New prepares it, Run is its life.
type Worker struct {
	cfg     Config
	hello   transfer.Hello
	data    net.Listener     // nil where nobody fetches KV from here
	server  *transfer.Server // likewise
	client  *transfer.Client
	trouble trouble
	links   links
	peers   atomic.Pointer[cluster.View] // of the others; nil before Run
	leaving context.Context              // ends when the worker is to stop; Run sets it
	log     *slog.Logger

	fixed, perToken, second float64 // bytes of a prompt's KV on the wire, see cluster.Member
}

// New opens the data port where the role needs one.
func New(c Config) (*Worker, error) {
	calibration := ""
	if c.Calibration != nil {
		calibration = hex.EncodeToString(c.Calibration.Hash[:])
	}
	w := &Worker{cfg: c, log: c.Logger}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	w.hello = transfer.NewHello(c.ID, c.Model, hex.EncodeToString(c.ModelHash[:]), calibration, c.Geometry)
	w.hello.Numerics = c.Numerics
	w.fixed, w.perToken, w.second = wireSize(c.Geometry)
	dial := c.Dial
	if dial == nil {
		dial = tcp.Dialer(c.TLS)
	}
	w.client = &transfer.Client{Hello: w.hello, Geometry: c.Geometry, Dial: dial, Key: c.Key, Timeouts: c.Timeouts}
	if !c.Role.Prefills() && c.Replicas == 0 {
		return w, nil
	}
	l, err := tcp.Listen(c.DataListen, c.TLS)
	if err != nil {
		return nil, err
	}
	w.data = l
	w.server = &transfer.Server{
		Hello: w.hello, Geometry: c.Geometry, Handler: w.serveData, Key: c.Key, MaxTokens: c.Engine.MaxContext(),
		Timeouts: c.Timeouts, Logger: w.log, Drain: c.Drain,
	}
	return w, nil
}

// Engine is what the worker computes with.
func (w *Worker) Engine() *engine.Engine { return w.cfg.Engine }

// DataAddr is the address that other workers fetch KV from, "" for none.
func (w *Worker) DataAddr() string {
	switch {
	case w.data == nil:
		return ""
	case w.cfg.DataAdvertise != "":
		return w.cfg.DataAdvertise
	}
	return w.data.Addr().String()
}

// Run serves until ctx ends, drains, and returns. The first part that fails ends
// the others.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.fitsIn(ctx); err != nil {
		return err
	}
	// The engine outlives the cluster's part and the data port, so that running
	// jobs and prefills can drain.
	inner, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	outer, leave := context.WithCancel(ctx)
	defer leave()
	w.leaving = outer
	var engine, data sync.WaitGroup
	part := func(wg *sync.WaitGroup, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				stop(err)
				leave()
			}
		})
	}
	part(&engine, func() error { return w.cfg.Engine.Run(inner) })
	if w.data != nil {
		part(&data, func() error { return w.server.Serve(outer, w.data) })
	}
	if w.cfg.Role.Decodes() {
		defer w.client.Close()
		part(&data, func() error { return w.keepWarm(outer) })
	}
	err := w.cfg.Conn.Serve(outer, cluster.Worker{Record: w.record, Handle: w.handler(), Drain: w.cfg.Drain})
	leave()
	data.Wait()
	stop(err)
	engine.Wait()
	if cause := context.Cause(inner); cause != nil && !errors.Is(cause, context.Canceled) {
		return fmt.Errorf("worker %s stopped: %w", w.cfg.ID, cause)
	}
	return nil
}

// keepWarm keeps connections to all prefill workers that are there, so that no
// prompt waits for a handshake.
func (w *Worker) keepWarm(ctx context.Context) error {
	view, err := w.cfg.Conn.WatchQuietly(ctx)
	if err != nil {
		return err
	}
	defer view.Close()
	w.peers.Store(view)
	var known []string
	wait, said := rewarm, ""
	for ctx.Err() == nil {
		var now []string
		again, cancel := context.WithTimeout(ctx, wait)
		_ = view.Wait(again, func(members []cluster.Member) bool { // an error is the time to look again
			now = w.sources(members)
			return !slices.Equal(now, known)
		})
		cancel()
		known = now
		err := w.client.Warm(ctx, known)
		if ctx.Err() == nil && (err != nil || wait > rewarm) {
			// Routing keeps prompts away from a worker that cannot be reached, so that
			// it is here that it shows. What was reached again is no trouble any more.
			w.trouble.note(err, time.Now())
		}
		wait = rewarm
		if err != nil && ctx.Err() == nil {
			wait = 5 * rewarm
			if err.Error() != said {
				said = err.Error()
				w.log.Warn("no KV connections to some prefill workers; prompts will try them again", "error", err)
			}
		}
	}
	return nil
}

// rewarm is how long connections that broke may be missing.
const rewarm = 2 * time.Second

// sources are the data addresses of other workers that prefill for this one.
func (w *Worker) sources(members []cluster.Member) []string {
	var addrs []string
	self := candidate(w.record())
	for _, m := range members {
		if m.ID != w.cfg.ID && m.Role.Prefills() && m.DataAddr != "" && route.Difference(candidate(m), self) == "" {
			addrs = append(addrs, m.DataAddr)
		}
	}
	slices.Sort(addrs)
	return slices.Compact(addrs)
}

// fitsIn refuses to join workers that could not share KV with this one: a
// misconfigured newcomer must not stop a cluster that works.
func (w *Worker) fitsIn(ctx context.Context) error {
	view, err := w.cfg.Conn.WatchQuietly(ctx)
	if err != nil {
		return err
	}
	defer view.Close()
	settle, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	<-settle.Done() // those that are there answer within a round trip
	self := candidate(w.record())
	for _, m := range view.Members() {
		if d := route.Difference(candidate(m), self); m.ID != self.ID && d != "" {
			return &terse.Error{Code: terse.CodeMismatch, Message: fmt.Sprintf("cannot join the cluster: %s; give all workers the same --model, --kv and calibration, or this one another --cluster", d)}
		}
	}
	return ctx.Err()
}

// settleTime is how long a joining worker listens for those that are there.
const settleTime = 200 * time.Millisecond

func candidate(m cluster.Member) route.Candidate {
	return route.Candidate{ID: m.ID, Role: m.Role, Model: m.Model, ModelHash: m.ModelHash, Calibration: m.Calibration, Format: m.Format}
}

// handler is nil for pure prefill workers, whose prompts come over the data port.
func (w *Worker) handler() cluster.Handler {
	if !w.cfg.Role.Decodes() {
		return nil
	}
	return w.handle
}

// record describes the worker to the cluster.
func (w *Worker) record() cluster.Member {
	load := w.cfg.Engine.Load()
	return cluster.Member{
		ID: w.cfg.ID, Role: w.cfg.Role, DataAddr: w.DataAddr(),
		Model: w.cfg.Model, ModelHash: w.hello.ModelHash, Text: w.cfg.Text, Calibration: w.hello.Calibration,
		Format: formatID(w.cfg.Geometry.Format), MaxContext: w.cfg.Engine.MaxContext(), VocabSize: w.cfg.VocabSize,
		Running: load.Running, Waiting: load.Waiting, WaitingTokens: load.WaitingTokens,
		KVFree: load.KVTotal - load.KVUsed, KVTotal: load.KVTotal, PrefillRate: load.PrefillRate,
		KVFixed: w.fixed, KVPerToken: w.perToken, KVSecond: w.second, Links: w.links.rates(time.Now()),
		Progressive: string(w.cfg.Progressive),
		Wedged:      w.wedged(), Replicas: load.Replicas,
	}
}

// formatID is the format as members compare it: the resolved symmetry is part
// of it, because "auto" may have meant different things to two workers.
func formatID(f quant.Format) string {
	if f.Family == quant.FamilyHQ && !f.Symmetric {
		return f.Name + " (asymmetric)"
	}
	return f.Name
}
