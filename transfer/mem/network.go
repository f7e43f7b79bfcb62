package mem

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// Network is a network in memory: what is dialed reaches who listens, through
// the script.
type Network struct {
	faults
	mu        sync.Mutex
	listeners map[string]*listener
}

// NewNetwork makes one with nobody on it.
func NewNetwork(framing Framing, s Script) *Network {
	n := &Network{listeners: map[string]*listener{}}
	n.framing, n.script, n.stop = framing, s, make(chan struct{})
	return n
}

// Listen takes an address, which may be any text.
func (n *Network) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", addr, syscall.EADDRINUSE)
	}
	l := &listener{net: n, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// Dial connects to who listens on addr.
func (n *Network) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("cannot dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	mine, outer := pipe(addr)
	inner, theirs := pipe(addr)
	select {
	case l.conns <- theirs:
		n.join(outer, inner)
		return mine, nil
	case <-l.closed:
		return nil, fmt.Errorf("cannot dial %s: %w", addr, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends all connections.
func (n *Network) Close() error {
	close(n.stop)
	n.running.Wait()
	return nil
}

type listener struct {
	net    *Network
	addr   string
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return address(l.addr) }

type address string

func (a address) Network() string { return "mem" }
func (a address) String() string  { return string(a) }
