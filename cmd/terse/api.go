package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/terse-llm/terse/gateway"
	"github.com/terse-llm/terse/route"
)

// apiFlags say where and to whom the OpenAI API is served.
type apiFlags struct {
	listen, key string
	insecure    bool
	timeout     time.Duration
	ttft        time.Duration // see gateway.ClusterOptions
	localBelow  int           // see route.Ask
	drain       time.Duration // 0: as by default
}

// drain is how long a stopping process lets running answers go on, by default.
const drain = 10 * time.Second

// checkDrain refuses a --drain under which nothing could finish.
func checkDrain(d time.Duration) error {
	if d <= 0 {
		return fmt.Errorf("--drain is %v: it must be positive", d)
	}
	return nil
}

func (f *apiFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8080", "address of the HTTP API")
	c.Flags().StringVar(&f.key, "api-key", "", "key that clients must show as a bearer token; required off loopback unless --insecure")
	c.Flags().BoolVar(&f.insecure, "insecure", false, "serve off loopback without an API key")
	c.Flags().DurationVar(&f.timeout, "request-timeout", 0, "longest a request may take, 0 for no limit")
	c.Flags().DurationVar(&f.ttft, "slo-ttft", 0, "time to the first token that requests are to keep: those that would not get theirs begin on the top planes of their KV (--progressive auto); 0 for none")
	c.Flags().IntVar(&f.localBelow, "local-below", route.DefaultLocalBelow, "prompts with fewer tokens to compute stay on the decode worker; -1 splits all that can be, also where staying would be faster")
	c.Flags().DurationVar(&f.drain, "drain", drain, "how long answers that run may go on when this process is asked to stop; then they end unfinished")
}

// bind opens the port, refusing to face the network without a key.
func (f *apiFlags) bind() (net.Listener, error) {
	if f.timeout < 0 {
		return nil, fmt.Errorf("--request-timeout is %v: it cannot be negative", f.timeout)
	}
	if f.ttft < 0 {
		return nil, fmt.Errorf("--slo-ttft is %v: it cannot be negative", f.ttft)
	}
	if err := checkDrain(f.drain); err != nil {
		return nil, err
	}
	if _, _, err := net.SplitHostPort(f.listen); err != nil {
		return nil, fmt.Errorf("--listen %q: write it as host:port: %w", f.listen, err)
	}
	if f.key == "" && !f.insecure && !loopback(f.listen) {
		return nil, fmt.Errorf("--listen %s is open to the network: give --api-key KEY, or --insecure to let everyone in", f.listen)
	}
	l, err := net.Listen("tcp", f.listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("cannot listen on %s: the port is in use; choose another with --listen: %w", f.listen, err)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", f.listen, err)
	}
	return l, nil
}

// newServer makes the text side of a model over a dispatcher.
func (m *files) newServer(d gateway.Dispatcher, maxContext int, template string, f *apiFlags, log *slog.Logger) (*gateway.Server, error) {
	tok, err := m.tokenizer()
	if err != nil {
		return nil, err
	}
	t, err := m.chatTemplate(template)
	if err != nil {
		return nil, err
	}
	if maxContext == 0 {
		maxContext = m.config.MaxContext
	}
	var health func() error
	if h, ok := d.(interface{ Health() error }); ok {
		health = h.Health
	}
	return gateway.New(gateway.Options{
		Dispatcher: d, Health: health, Tokenizer: tok, Template: t, Models: []string{m.name}, MaxContext: maxContext,
		StopTokens: m.stopTokens(tok.StopTokens()), Created: time.Now(), APIKey: f.key, Timeout: f.timeout, Logger: log,
	})
}

// serveHTTP serves until ctx ends, then lets running answers finish, for so long.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, patience time.Duration) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if err := s.Shutdown(wait); err != nil {
			done <- s.Close()
			return
		}
		done <- nil
	})
	err := s.Serve(l)
	if !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("cannot serve HTTP on %s: %w", l.Addr(), err)
	}
	return <-done
}
