package serving

import (
	"context"
	"net"
	"sync"
	"time"
)

// Dial connects to a data port.
type Dial = func(ctx context.Context, addr string) (net.Conn, error)

// Link is the network in front of one receiver: a rate that all of its connections
// share. What a connection reads has taken as long as the link needs for it.
type Link struct {
	mu    sync.Mutex
	rate  float64   // bytes a second; 0 = as fast as it comes
	until time.Time // when the link is done with all that was read
}

// SetRate changes the rate, in bytes a second; 0 takes the bound away.
func (l *Link) SetRate(rate float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = rate
}

// Over puts the link behind a dialer.
func (l *Link) Over(dial Dial) Dial {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return &linked{conn, l}, nil
	}
}

// take is when the link has carried n more bytes.
func (l *Link) take(n int, now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return now
	}
	if l.until.Before(now) {
		l.until = now // an idle link saves nothing up
	}
	l.until = l.until.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.until
}

// quantum bounds what is read at a time, so that the link is shared finely.
const quantum = 32 << 10

type linked struct {
	net.Conn
	link *Link
}

func (c *linked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), quantum)])
	if n > 0 {
		now := time.Now()
		time.Sleep(c.link.take(n, now).Sub(now))
	}
	return n, err
}
