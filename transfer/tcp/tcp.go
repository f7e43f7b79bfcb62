package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Listen opens the data port.
func Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("cannot listen for KV on %s: the port is in use; choose another, or port 0 for any: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen for KV on %s: %w", addr, err)
	}
	return l, nil
}

// Dial connects to a prefill worker's data port. Small frames leave at once
// (TCP_NODELAY is Go's default); dead hosts are found by keep-alive probes as
// well as by the protocol's own pings.
func Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}
	return d.DialContext(ctx, "tcp", addr)
}
