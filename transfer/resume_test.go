package transfer

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/transfer/mem"
	"github.com/terse-llm/terse/transfer/tcp"
)

// A connection that breaks costs what was on its way, and nothing is computed
// again: the transfer's handler runs once.
func TestResumeSendsWhatIsMissing(t *testing.T) {
	g := geometry(t, "f16")
	const n = 6000 // several frames of every layer
	src := fullView(g, n, noise(2))
	p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 512}
	l, err := tcp.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	var handled atomic.Int32
	ended := make(chan int64, 9)
	p.serve(t, l, func(s *Server) {
		s.Handler = func(ctx context.Context, request []byte, to *Sender) error {
			handled.Add(1)
			defer func() { ended <- to.Bytes() }()
			return p.handle(ctx, request, to)
		}
	})
	relay, err := mem.NewRelay(l.Addr().String(), framing, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	f := func(script string, resumed int) {
		t.Helper()
		rules, err := mem.Parse(script)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 { // how connections share the work is theirs: until the script strikes
			relay.Set(rules)
			handled.Store(0)
			c := client(t, g)
			c.Window = 1 << 20
			dst := fullView(g, n, func([]byte) {})
			res, err := fetch(t.Context(), c, relay.Addr(), "go", dst, n)
			if err != nil {
				t.Fatalf("%s: %v", script, err)
			}
			c.Close()
			sent := <-ended
			sameHandover(t, g, n, src, dst)
			if len(relay.Fired()) < len(rules) {
				continue
			}
			if handled.Load() != 1 || res.Resumed != resumed || res.Bytes != HandoverBytes(g, n) {
				t.Errorf("%s: computed %d times, resumed %d times (want %d), %d bytes", script, handled.Load(), res.Resumed, resumed, res.Bytes)
			}
			if most := 2 * (c.Window + int64(frameTarget)); sent-res.Bytes > most {
				t.Errorf("%s: sent %d bytes for %d", script, sent, res.Bytes)
			}
			return
		}
		t.Errorf("%s: never struck", script)
	}
	f("down conn 0 kill byte 900000", 1)
	f("down conn 1 kill byte 300000", 0) // a connection beside the control one
	f("down conn 2 corrupt byte 200000; down conn 1 truncate frame 3", 0)
	f("down conn 0 corrupt frame 5", 1)
}

// A second worker sends what the first one has not; one that computes by other
// kernels sends everything.
func TestReplacedPrefill(t *testing.T) {
	g := geometry(t, "hq3")
	const n = 3000
	src := fullView(g, n, noise(2))
	f := func(numerics string, again bool) {
		t.Helper()
		first := peer{hello: hello(g), g: g, view: src, n: n, chunk: 512}
		second := first
		second.hello.Numerics = numerics
		l, err := tcp.Listen("127.0.0.1:0", nil)
		if err != nil {
			t.Fatal(err)
		}
		half := func(_ context.Context, _ []byte, s *Sender) error {
			for layer := range g.Layers {
				s.Written(layer, n/2, src)
			}
			s.mu.Lock()
			for s.flight+int64(len(s.ready)) > 0 {
				s.mu.Unlock()
				time.Sleep(time.Millisecond)
				s.mu.Lock()
			}
			s.mu.Unlock()
			return &terse.Error{Code: terse.CodeWorkerLost, Message: "the engine failed"}
		}
		first.serve(t, l, func(s *Server) { s.Handler = half })
		c := client(t, g)
		c.Window = 1 // every frame is acknowledged
		dst := fullView(g, n, func([]byte) {})
		x := c.Begin(dst, n)
		defer x.End()
		if _, err := x.From(t.Context(), l.Addr().String(), []byte("go")); terse.CodeOf(err) != terse.CodeWorkerLost {
			t.Fatalf("the first worker: %v", err)
		}
		missing := x.missing()
		if missing == 0 || missing == newPlan(g, n, false).count() {
			t.Fatalf("%d parts missing after half a prompt", missing)
		}
		l2, err := tcp.Listen("127.0.0.1:0", nil)
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan int64, 1)
		second.serve(t, l2, func(s *Server) {
			s.Handler = func(ctx context.Context, request []byte, to *Sender) error {
				defer func() { sent <- to.Bytes() }()
				return second.handle(ctx, request, to)
			}
		})
		if _, err := x.From(t.Context(), l2.Addr().String(), []byte("go")); err != nil {
			t.Fatal(err)
		}
		sameHandover(t, g, n, src, dst)
		x.End()
		c.Close()
		if part, whole := <-sent, HandoverBytes(g, n); (part == whole) != again {
			t.Errorf("the second worker sent %d of %d bytes", part, whole)
		}
	}
	f("", false)
	f("other kernels", true)
}

// After a cancel the connections are used again, and what was still on its way
// is dropped by its lease.
func TestCancelKeepsConnections(t *testing.T) {
	g := geometry(t, "f16")
	const n = 6000
	src := fullView(g, n, noise(2))
	p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 512}
	l, err := tcp.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.serve(t, l)
	dials := 0
	c := client(t, g)
	c.Conns, c.Timeouts.Ping = 1, patience // none is given up as too quiet
	c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		dials++
		return tcp.Dial(ctx, addr)
	}
	dst := fullView(g, n, func([]byte) {})
	// One that ends, so that none of the others is cancelled in its handshake.
	if _, err := fetch(t.Context(), c, l.Addr().String(), "go", dst, n); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*300*time.Microsecond)
		_, err := fetch(ctx, c, l.Addr().String(), "go", dst, n)
		cancel()
		if err != nil && terse.CodeOf(err) != terse.CodeDeadline && terse.CodeOf(err) != terse.CodeWorkerLost {
			t.Fatal(err)
		}
	}
	dst = fullView(g, n, func([]byte) {})
	if _, err := fetch(t.Context(), c, l.Addr().String(), "go", dst, n); err != nil {
		t.Fatal(err)
	}
	sameHandover(t, g, n, src, dst)
	if dials != 1 {
		t.Errorf("%d connections were made", dials)
	}
}

// Warm connections spare the first transfer its handshakes.
func TestWarm(t *testing.T) {
	g := geometry(t, "hq3")
	src := fullView(g, 700, noise(1))
	addr := peer{hello: hello(g), g: g, view: src, n: 700, chunk: 700}.start(t)
	c := client(t, g)
	c.Timeouts.Ping = patience // none is given up as too quiet
	var dials atomic.Int32
	c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		dials.Add(1)
		return tcp.Dial(ctx, addr)
	}
	if err := c.Warm(t.Context(), []string{addr, "127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
	if err := c.Warm(t.Context(), []string{addr}); err != nil {
		t.Error(err)
	}
	before := dials.Load() // four where somebody is, one where nobody is
	if before != 5 {
		t.Errorf("%d connections were tried", before)
	}
	for range 3 {
		if _, err := fetch(t.Context(), c, addr, "go", fullView(g, 700, func([]byte) {}), 700); err != nil {
			t.Fatal(err)
		}
	}
	if dials.Load() != before {
		t.Error("a warm transfer dialed")
	}
	if err := c.Warm(t.Context(), nil); err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) != 0 {
		t.Errorf("connections to a worker that is gone are kept: %v", c.idle)
	}
}

// Stale frames, of an epoch that is over, change nothing.
func TestStaleFramesAreDropped(t *testing.T) {
	g := smallGeometry(t)
	const n = 300
	x := (&Client{Geometry: g}).Begin(fullView(g, n, func([]byte) {}), n)
	w, out := recorded(nil, g)
	p := newPlan(g, n, false)
	src := fullView(g, n, noise(1))
	for _, where := range []struct {
		lease uint64
		epoch uint32
	}{{7, 1}, {8, 2}, {7, 3}} {
		bufs, _ := p.appendBytes([][]byte{appendSpans(nil, []span{{0, 1}})}, src, 0, new(packer))
		w.send(header{kind: frameKV, lease: where.lease, epoch: where.epoch, ranges: 1}, bufs...)
	}
	l, _ := recorded(out.out.Bytes(), g)
	x.lease, x.epoch, x.links = 7, 2, []*link{l}
	l.user.Store(x)
	_ = l.listen()
	if x.left != p.count() {
		t.Errorf("%d parts were taken from stale frames", p.count()-x.left)
	}
	x.End()
}

// Bounded: a server with all transfers taken says so.
func TestTooManyTransfers(t *testing.T) {
	g := geometry(t, "hq3")
	p := peer{hello: hello(g), g: g, view: fullView(g, 70, noise(1)), n: 70, chunk: 64, pause: time.Hour}
	l, err := tcp.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := p.serve(t, l, func(s *Server) { s.MaxTransfers = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	c := client(t, g)
	go func() {
		_, err := fetch(ctx, c, l.Addr().String(), "go", fullView(g, 70, noise(1)), 70)
		first <- err
	}()
	for {
		s.mu.Lock()
		n := len(s.transfers)
		s.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := fetch(t.Context(), c, l.Addr().String(), "go", fullView(g, 70, noise(1)), 70); terse.CodeOf(err) != terse.CodeOverloaded {
		t.Errorf("got %v", err)
	}
	cancel()
	<-first
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.transfers)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("a cancelled transfer is kept")
		}
	}
}

// Requests that cannot be meant are refused in words.
func TestBadRequests(t *testing.T) {
	g := geometry(t, "hq3")
	addr := peer{hello: hello(g), g: g, view: fullView(g, 70, noise(1)), n: 70, chunk: 64}.start(t)
	f := func(tokens uint32, window uint64, have []span) {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		l := newLink(conn, calm.orDefault(), maxFrame(g))
		defer l.fail(net.ErrClosed)
		if err := l.greet(hello(g), nil); err != nil {
			t.Fatal(err)
		}
		head := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(nil, tokens), window)
		l.send(header{kind: frameRequest, lease: 5, epoch: 1, ranges: uint32(len(have))}, appendSpans(nil, have), head)
		for {
			h, b, err := l.read()
			if err != nil {
				t.Fatal(err)
			}
			if h.kind == frameError {
				t.Log(decodeError(b))
				return
			}
			if h.kind != framePing {
				t.Fatalf("%d tokens, window %d, have %v: frame type %d", tokens, window, have, h.kind)
			}
		}
	}
	f(0, 1<<20, nil)
	f(1<<31, 1<<20, nil)
	f(70, 0, nil)
	f(70, 1<<20, []span{{0, 1 << 30}})
	f(70, 1<<20, []span{{1, 2}, {0, 1}})
}
