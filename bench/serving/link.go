package serving

import (
	"context"
	"math"
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
		return &linked{Conn: conn, link: l}, nil
	}
}

// take is when the link has carried n more bytes, that were there to be carried from
// a time on.
func (l *Link) take(n int, there time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return there
	}
	if l.until.Before(there) {
		l.until = there // an idle link saves nothing up
	}
	l.until = l.until.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	return l.until
}

const (
	// share bounds what is read at a time to what takes the link so long, and least from
	// below, so that connections share it finely.
	share = 100 * time.Microsecond
	least = 32 << 10
	// A read that takes less is taken to have found its bytes waiting.
	atOnce = 500 * time.Microsecond
	// late bounds how much later than the link a reader may be without the link being
	// slower for it: sleeps of some microseconds, as fast links ask for, take a tenth of a
	// millisecond or a half, and several milliseconds where processors are busy.
	late = 5 * time.Millisecond
)

// quantum is how much may be read at a time.
func (l *Link) quantum() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 {
		return math.MaxInt
	}
	return max(least, int(l.rate*share.Seconds()))
}

type linked struct {
	net.Conn
	link *Link
	free time.Time // when the link was done with what was read last
}

func (c *linked) Read(p []byte) (int, error) {
	asked := time.Now()
	n, err := c.Conn.Read(p[:min(len(p), c.link.quantum())])
	if n > 0 {
		now := time.Now()
		time.Sleep(c.carry(n, asked, now).Sub(now))
	}
	return n, err
}

// carry is when n bytes have come, that a read from asked to now has got. If they were
// there already, the link has been at them since it was done with those before, though
// the reader slept longer.
func (c *linked) carry(n int, asked, now time.Time) time.Time {
	there := now
	if now.Sub(asked) < atOnce && !c.free.IsZero() && c.free.Before(now) {
		there = c.free
		if first := now.Add(-late); there.Before(first) {
			there = first
		}
	}
	c.free = c.link.take(n, there)
	return c.free
}
