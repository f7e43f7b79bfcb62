package serving

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A link takes as long as its rate says, for all connections together.
func TestLink(t *testing.T) {
	l := &Link{}
	l.SetRate(1e6)
	now := time.Now()
	require.Equal(t, now.Add(100*time.Millisecond), l.take(100_000, now))
	require.Equal(t, now.Add(150*time.Millisecond), l.take(50_000, now.Add(20*time.Millisecond)))
	later := now.Add(time.Hour) // an idle link saves nothing up
	require.Equal(t, later.Add(time.Millisecond), l.take(1000, later))
	l.SetRate(0)
	require.Equal(t, now, l.take(1<<30, now))
}

func TestLinkConn(t *testing.T) {
	l := &Link{}
	l.SetRate(2e6)
	here, there := net.Pipe()
	conn, err := l.Over(func(context.Context, string) (net.Conn, error) { return here, nil })(t.Context(), "")
	require.NoError(t, err)
	const n = 200_000
	go func() { _, _ = there.Write(make([]byte, n)); there.Close() }()
	start := time.Now()
	got, err := io.Copy(io.Discard, conn)
	require.NoError(t, err)
	require.EqualValues(t, n, got)
	require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond) // what the link needs: a bound of the rate, not a speed
}

// A link is as fast as it says, however much too long its reader sleeps, and saves
// nothing up while there is nothing to carry.
func TestLinkLate(t *testing.T) {
	const mb = 1 << 20
	l := &Link{rate: 1000 * mb} // a MiB takes a millisecond
	c := &linked{link: l}
	start := time.Unix(1000, 0)
	took := 5 * time.Microsecond
	now := start.Add(took)
	until := c.carry(mb/8, start, now)
	require.Equal(t, now.Add(125*time.Microsecond), until, "the first bytes take their time")
	for range 79 { // 10 MiB in all
		asked := until.Add(90 * time.Microsecond)
		until = c.carry(mb/8, asked, asked.Add(took))
	}
	require.Equal(t, now.Add(10*time.Millisecond), until, "a late reader does not slow the link down")

	asked, now := until.Add(time.Second), until.Add(2*time.Second)
	require.Equal(t, now.Add(time.Millisecond), c.carry(mb, asked, now), "what a read had to wait for begins when it comes")

	asked = c.free.Add(time.Second)
	now = asked.Add(took)
	require.Equal(t, now.Add(time.Millisecond-late), c.carry(mb, asked, now), "a reader that is a second late is allowed some milliseconds")

	other := &linked{link: l}
	asked, now = now, now.Add(time.Second)
	first := c.carry(mb, asked, now)
	require.Equal(t, first.Add(time.Millisecond), other.carry(mb, asked, now), "connections share the link")

	l.SetRate(0)
	asked = first.Add(time.Second)
	require.Equal(t, asked.Add(time.Second), c.carry(mb, asked, asked.Add(time.Second)), "without a rate nothing takes time")
}

// BenchmarkLink is what links carry over loopback, beside what they say.
func BenchmarkLink(b *testing.B) {
	for _, gbit := range []float64{0.4, 1, 10, 25} {
		b.Run(fmt.Sprint(gbit, "Gbps"), func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			defer ln.Close()
			total := int64(b.N) << 20
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				buf := make([]byte, 1<<20)
				for range b.N {
					if _, err := conn.Write(buf); err != nil {
						return
					}
				}
			}()
			l := new(Link)
			l.SetRate(gbit * 1e9 / 8)
			conn, err := l.Over(func(_ context.Context, addr string) (net.Conn, error) { return net.Dial("tcp", addr) })(b.Context(), ln.Addr().String())
			require.NoError(b, err)
			defer conn.Close()
			b.SetBytes(1 << 20)
			start := time.Now()
			n, err := io.Copy(io.Discard, struct{ io.Reader }{conn})
			require.NoError(b, err)
			require.Equal(b, total, n)
			b.ReportMetric(float64(8*n)/time.Since(start).Seconds()/1e9, "Gbit/s")
		})
	}
}
