package tcp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Listen opens the data port, under TLS where a configuration is given.
func Listen(addr string, secure *tls.Config) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("cannot listen for KV on %s: the port is in use; choose another, or port 0 for any: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen for KV on %s: %w", addr, err)
	}
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	return l, nil
}

// Dialer connects to prefill workers' data ports, under TLS where a
// configuration is given.
func Dialer(secure *tls.Config) func(ctx context.Context, addr string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := Dial(ctx, addr)
		if err != nil || secure == nil {
			return conn, err
		}
		s := tls.Client(conn, secure)
		if err := s.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("no TLS with %s: %w; give all workers --tls-cert, --tls-key and --tls-ca, or none", addr, err)
		}
		return s, nil
	}
}

// Dial connects without TLS. Small frames leave at once (TCP_NODELAY is Go's
// default); dead hosts are found by keep-alive probes as well as by the
// protocol's own pings.
func Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}
	return d.DialContext(ctx, "tcp", addr)
}
