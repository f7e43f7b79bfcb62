//go:build !linux

package e2e

import (
	"context"
	"net"
)

// dialer dials; network namespaces are Linux's.
func dialer(string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext
}
