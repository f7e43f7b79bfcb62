package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
)

// Client is the decode side of the wire. It keeps connections warm between
// transfers. Its methods are safe for concurrent use; Close it at the end.
type Client struct {
	Hello    Hello
	Geometry *quant.Geometry
	Dial     func(ctx context.Context, addr string) (net.Conn, error)
	Key      []byte // of the cluster; nil = none
	Timeouts Timeouts
	Conns    int   // of one transfer, and kept warm for each worker; 0 means 4
	Window   int64 // bytes that may be on their way to one transfer; 0 means 16 MiB

	mu      sync.Mutex
	idle    map[string][]*link
	all     map[*link]string // its address
	closed  bool
	running sync.WaitGroup
}

func (c *Client) conns() int { return orDefault(c.Conns, 4) }

func (c *Client) window() int64 {
	if c.Window == 0 {
		return 16 << 20
	}
	return c.Window
}

// Warm opens connections to the prefill workers at addrs, so that the first
// transfer does not wait for handshakes, and lets go of idle ones to others.
// What cannot be reached now is dialed when it is needed; the error says why, for
// people.
func (c *Client) Warm(ctx context.Context, addrs []string) error {
	c.mu.Lock()
	missing := map[string]int{}
	for _, a := range addrs {
		missing[a] = c.conns()
	}
	for _, addr := range c.all {
		missing[addr]--
	}
	for addr, list := range c.idle {
		if !slices.Contains(addrs, addr) {
			for _, l := range list {
				l.fail(errNotNeeded)
			}
			delete(c.idle, addr)
		}
	}
	c.mu.Unlock()
	var wg sync.WaitGroup
	errs := make([]error, len(addrs))
	for i, addr := range addrs {
		wg.Go(func() {
			for range missing[addr] {
				l, err := c.dial(ctx, addr)
				if err != nil {
					errs[i] = err
					return // the next would fare no better
				}
				c.give(addr, l)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

var errNotNeeded = errors.New("the connection is not needed any more")

// Close ends all connections.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	for l := range c.all {
		l.fail(errNotNeeded)
	}
	c.idle = nil
	c.mu.Unlock()
	c.running.Wait()
}

// takeIdle is a warm connection to addr, nil if there is none.
func (c *Client) takeIdle(addr string) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.idle[addr]
	// A worker that is there has pinged; one that has not is not waited for.
	fresh := time.Now().Add(-3 * c.Timeouts.orDefault().Ping).UnixNano()
	for len(list) > 0 {
		l := list[len(list)-1]
		list = list[:len(list)-1]
		c.idle[addr] = list
		if l.alive() && l.heard.Load() > fresh {
			return l
		}
		l.fail(errors.New("it fell silent"))
	}
	return nil
}

// give keeps a connection for the next transfer.
func (c *Client) give(addr string, l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !l.alive() || len(c.idle[addr]) >= 2*c.conns() {
		l.fail(errNotNeeded)
		return
	}
	c.idle[addr] = append(c.idle[addr], l)
}

// dial opens a connection and starts its reader.
func (c *Client) dial(ctx context.Context, addr string) (*link, error) {
	to := c.Timeouts.orDefault()
	dialCtx, cancel := context.WithTimeout(ctx, to.Hello)
	defer cancel()
	conn, err := c.Dial(dialCtx, addr)
	if err != nil {
		return nil, lost(addr, err)
	}
	l := newLink(conn, to, maxFrame(c.Geometry))
	stop := context.AfterFunc(ctx, func() { l.fail(ctx.Err()) })
	err = l.greet(c.Hello, c.Key)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("it closed the connection in the handshake (as a worker with --tls-cert does to one without): %w", err)
	}
	if err != nil {
		l.fail(err)
		return nil, classify(addr, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		l.fail(errNotNeeded)
		return nil, lost(addr, errNotNeeded)
	}
	if c.all == nil {
		c.all, c.idle = map[*link]string{}, map[string][]*link{}
	}
	c.all[l] = addr
	c.running.Add(2)
	go func() { defer c.running.Done(); l.keepAlive() }()
	go func() { defer c.running.Done(); c.read(addr, l) }()
	return l, nil
}

// read is the reader of one connection.
func (c *Client) read(addr string, l *link) {
	l.fail(classify(addr, l.listen()))
	if u := l.user.Load(); u != nil {
		u.signal()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, l)
	if i := slices.Index(c.idle[addr], l); i >= 0 {
		c.idle[addr] = slices.Delete(c.idle[addr], i, i+1)
	}
}

// listen takes the prefiller's frames and hands them to the transfer they
// belong to. Frames of transfers and epochs that are over are dropped.
func (l *link) listen() error {
	for {
		h, payload, err := l.read()
		if err != nil {
			return noEOF(err)
		}
		switch h.kind {
		case framePing:
		case frameKV, frameAccept, frameDone:
			if u := l.user.Load(); u != nil && u.lease == h.lease {
				if err := u.take(l, &h, payload); err != nil {
					return err
				}
			}
		case frameError:
			err := decodeError(payload)
			if h.lease == 0 {
				return err
			}
			if u := l.user.Load(); u != nil && u.lease == h.lease {
				u.refused(l, h.epoch, err)
			}
		default:
			return fmt.Errorf("frame type %d from a prefill worker", h.kind)
		}
	}
}

// classify gives every failure a code that says whether to try elsewhere.
func classify(addr string, err error) error {
	var typed *terse.Error
	var timeout net.Error
	switch {
	case err == nil || errors.As(err, &typed):
		return err
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return lost(addr, errSilent)
	}
	return &terse.Error{Code: terse.CodeTransfer, Message: fmt.Sprintf("cannot take over KV from %s: %v", addr, err)}
}

var errSilent = errors.New("it fell silent")

func lost(addr string, err error) error {
	return &terse.Error{Code: terse.CodeWorkerLost, Message: fmt.Sprintf("cannot reach the prefill worker at %s: %v", addr, err)}
}
