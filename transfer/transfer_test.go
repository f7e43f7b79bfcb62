package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/bits"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/transfer/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that must come; no test measures by it.
const patience = 2 * time.Minute

// calm are timeouts that no machine is too busy for: whatever happens to a connection
// is the test's doing.
var calm = Timeouts{Idle: patience, Ping: 25 * time.Millisecond, Hello: patience, Lease: patience, Stop: patience}

// quick are timeouts that keep the tests of silence short. Connections may be lost by
// them on a machine that stands still for as long.
var quick = Timeouts{Idle: 400 * time.Millisecond, Ping: 50 * time.Millisecond, Hello: 400 * time.Millisecond, Lease: 300 * time.Millisecond}

// patient are timeouts that a busy machine keeps: where what is right must come
// although a connection falls silent, silence has to be the link's and not the tests' own.
var patient = Timeouts{Idle: 2 * time.Second, Ping: 25 * time.Millisecond, Hello: 2 * time.Second, Lease: patience}

func geometry(t testing.TB, format string) *quant.Geometry {
	t.Helper()
	f, err := quant.ParseFormat(format, true)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 3, 2, 64)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// fullView has both forms of every page of n tokens, filled by fill.
func fullView(g *quant.Geometry, n int, fill func([]byte)) *quant.View {
	v := &quant.View{Geometry: g}
	for range n/g.Format.PageTokens + 1 {
		exact, coded := make([]byte, g.ExactPage()), make([]byte, g.CodedPage())
		fill(exact)
		fill(coded)
		v.Exact, v.Coded = append(v.Exact, exact), append(v.Coded, coded)
		for layer := range g.Layers {
			page := len(v.Coded) - 1
			thinSets(g.At(layer), v.CodedLayer(page, layer))
			if g.Packs() { // not any bytes are codes
				g.Encode(quant.EncodeArgs{Exact: v.ExactLayer(page, layer), Coded: v.CodedLayer(page, layer), Layer: layer, Hi: g.Format.PageTokens})
			}
		}
	}
	return v
}

// thinSets leaves no more tokens in the sets of a page than may be there.
func thinSets(g *quant.Geometry, page []byte) {
	for head := range g.KVHeads {
		for half := range g.HQ {
			l, at := &g.HQ[half], g.CodedHead(page, head)
			if l.LowRows > 0 && l.Mask >= 0 {
				set := binary.LittleEndian.Uint64(at[l.Mask:])
				for bits.OnesCount64(set) > l.LowRows-head {
					set &= set - 1
				}
				binary.LittleEndian.PutUint64(at[l.Mask:], set)
			}
		}
	}
}

func noise(seed uint64) func([]byte) {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(b []byte) {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
}

// peer is a prefill side that sends view's hand-over of n tokens, chunk tokens
// at a time, layer by layer.
type peer struct {
	hello Hello
	g     *quant.Geometry
	view  *quant.View
	n     int
	chunk int
	pause time.Duration // before the first frame
	key   []byte
	to    Timeouts      // zero = calm
	after func(*Sender) // when the decoder has everything; may be nil
}

func (p peer) handle(ctx context.Context, request []byte, s *Sender) error {
	if string(request) == "refuse" {
		return &terse.Error{Code: terse.CodeKVMemory, Message: "no room"}
	}
	select {
	case <-time.After(p.pause):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for t := 0; t < p.n; t += p.chunk {
		for layer := range p.g.Layers {
			s.Written(layer, min(t+p.chunk, p.n), p.view)
			if t+p.chunk >= p.n {
				s.Selected(layer, p.view)
			}
		}
	}
	err := s.Finish([]byte("first token"))
	if p.after != nil {
		p.after(s)
	}
	return err
}

// start serves p on loopback until the test ends.
func (p peer) start(t testing.TB) string {
	t.Helper()
	l, err := tcp.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.serve(t, l)
	return l.Addr().String()
}

func hello(g *quant.Geometry) Hello { return NewHello("p1", "m", "aa", "cc", g) }

func client(t testing.TB, g *quant.Geometry) *Client {
	h := hello(g)
	h.Worker = "d1"
	c := &Client{Hello: h, Geometry: g, Dial: tcp.Dial, Timeouts: calm}
	t.Cleanup(c.Close)
	return c
}

// fetch has one worker fill view.
func fetch(ctx context.Context, c *Client, addr, request string, view *quant.View, n int) (Result, error) {
	f := c.Begin(view, n)
	defer f.End()
	return f.From(ctx, addr, []byte(request))
}

// sameHandover fails unless the parts of the hand-over are equal in both views
// and everything else in got is untouched (zero).
func sameHandover(t *testing.T, g *quant.Geometry, n int, want, got *quant.View) {
	t.Helper()
	expect := fullView(g, n, func([]byte) {})
	p := newPlan(g, n, false)
	for i := range p.count() {
		from, err := p.appendBytes(nil, want, i, new(packer))
		if err != nil {
			t.Fatal(err)
		}
		to, err := p.appendBytes(nil, expect, i, new(packer))
		if err != nil {
			t.Fatal(err)
		}
		data, page, part := bytes.Join(from, nil), p.page(expect, i), p.parts[i%len(p.parts)]
		switch {
		case part.Planes == quant.SecondPlane:
			g.PutSecond(page, data)
			continue
		case p.packed(i % len(p.parts)):
			if err := g.At(i/len(p.parts)).Unpack(page, data, part.Hi, new(quant.PackScratch)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for k := range to {
			copy(to[k], from[k])
		}
	}
	for i := range expect.Exact {
		if string(expect.Exact[i]) != string(got.Exact[i]) || string(expect.Coded[i]) != string(got.Coded[i]) {
			t.Fatalf("page %d differs from what was sent", i)
		}
	}
}

func TestFetchMovesTheHandover(t *testing.T) {
	for _, format := range []string{"f16", "hq2", "hq3", "hq4", "hack", "hack:v2", "hack,partition=128", "hack:v2,partition=32", "int8", "int4", "kivi", "cachegen", "cachegen,delta=10", "kvquant", "hq2,important=10", "hq3,important=50"} {
		for _, n := range []int{1, 63, 64, 65, 200, 700} {
			for _, chunk := range []int{64, 100, 1000} {
				t.Run(fmt.Sprintf("%s/%d/%d", format, n, chunk), func(t *testing.T) {
					g := geometry(t, format)
					src := fullView(g, n, noise(7))
					addr := peer{hello: hello(g), g: g, view: src, n: n, chunk: chunk}.start(t)
					dst := fullView(g, n, func([]byte) {})
					res, err := fetch(context.Background(), client(t, g), addr, "go", dst, n)
					if err != nil {
						t.Fatal(err)
					}
					if want := handoverBytes(t, g, n, src); string(res.Done) != "first token" || res.Bytes != want {
						t.Fatalf("done %q, %d bytes, want %d", res.Done, res.Bytes, want)
					}
					sameHandover(t, g, n, src, dst)
				})
			}
		}
	}
}

// handoverBytes is what the hand-over of these very pages takes.
func handoverBytes(t *testing.T, g *quant.Geometry, n int, view *quant.View) (total int64) {
	t.Helper()
	p := newPlan(g, n, false)
	for i := range p.count() {
		bufs, err := p.appendBytes(nil, view, i, new(packer))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bufs {
			total += int64(len(b))
		}
	}
	if !g.Format.Selects() && !g.Packs() && total != HandoverBytes(g, n) { // else it depends on what is in them
		t.Fatalf("%d bytes, HandoverBytes says %d", total, HandoverBytes(g, n))
	}
	return total
}

// The share of f16 that a 4,096-token prompt of the default model's shape costs
// on the wire, exact windows included.
func TestWireShare(t *testing.T) {
	f := func(format string, limit float64) {
		t.Helper()
		fm, err := quant.ParseFormat(format, true)
		if err != nil {
			t.Fatal(err)
		}
		g, err := quant.NewGeometry(fm, 8, 2, 64)
		if err != nil {
			t.Fatal(err)
		}
		share := float64(HandoverBytes(g, 4096)) / float64(F16Bytes(g, 4096))
		t.Logf("%s: %.2f %%", format, 100*share)
		if share > limit || share < 0.1 && format != "f16" {
			t.Errorf("%s moves %.1f %% of f16, limit %.0f %%", format, 100*share, 100*limit)
		}
	}
	f("f16", 1)
	f("hq2", 0.21)
	f("hq2+", 0.23)
	f("hq3", 0.27)
	f("hq2,important=10", 0.24)
	f("hq4", 0.35)
	f("hack", 0.18)
	f("hack:v2", 0.18)
	f("int8", 0.54)
	f("int4", 0.29)
	f("kivi", 0.23)
	f("kvquant", 0.18)
	f("cachegen", 0.26)
}

func TestMismatchIsRefusedByName(t *testing.T) {
	g := geometry(t, "hq3")
	addr := peer{hello: hello(g), g: g, view: fullView(g, 70, noise(1)), n: 70, chunk: 64}.start(t)
	f := func(want string, change func(*Hello)) {
		t.Helper()
		c := client(t, g)
		change(&c.Hello)
		_, err := fetch(context.Background(), c, addr, "go", fullView(g, 70, noise(1)), 70)
		if terse.CodeOf(err) != terse.CodeMismatch || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "p1") || !strings.Contains(err.Error(), "d1") {
			t.Errorf("want a mismatch that says %q and names both, got %v", want, err)
		}
	}
	f("model", func(h *Hello) { h.ModelHash = "bb" })
	f("calibration", func(h *Hello) { h.Calibration = "" })
	f("KV format", func(h *Hello) { h.Format = "hq2" })
	f("symmetric", func(h *Hello) { h.Symmetric = false })
	f("head_dim", func(h *Hello) { h.HeadDim = 128 })
	f("coded page size", func(h *Hello) { h.CodedBytes++ })
}

func TestPeerErrorsKeepTheirCode(t *testing.T) {
	g := geometry(t, "f16")
	addr := peer{hello: hello(g), g: g, view: fullView(g, 70, noise(1)), n: 70, chunk: 64}.start(t)
	_, err := fetch(context.Background(), client(t, g), addr, "refuse", fullView(g, 70, noise(1)), 70)
	if terse.CodeOf(err) != terse.CodeKVMemory {
		t.Fatalf("got %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	g := geometry(t, "f16")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, err = fetch(context.Background(), client(t, g), addr, "go", fullView(g, 70, noise(1)), 70)
	if terse.CodeOf(err) != terse.CodeWorkerLost || !strings.Contains(err.Error(), addr) {
		t.Fatalf("got %v", err)
	}
}

// A prefill that takes longer than the idle time is not a lost one: pings tell.
func TestSlowPrefillIsNotLost(t *testing.T) {
	g := geometry(t, "f16")
	src := fullView(g, 70, noise(1))
	addr := peer{hello: hello(g), g: g, view: src, n: 70, chunk: 64, to: patient, pause: patient.Idle * 3 / 2}.start(t)
	dst := fullView(g, 70, func([]byte) {})
	c := client(t, g)
	c.Timeouts = patient
	if _, err := fetch(context.Background(), c, addr, "go", dst, 70); err != nil {
		t.Fatal(err)
	}
	sameHandover(t, g, 70, src, dst)
}

func TestCancelReachesTheOtherSide(t *testing.T) {
	g := geometry(t, "f16")
	fetchCtx, cancel := context.WithCancel(context.Background())
	cancelled := make(chan error, 1)
	l, err := tcp.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{Hello: hello(g), Geometry: g, Timeouts: calm, Logger: slog.New(slog.DiscardHandler),
		Handler: func(ctx context.Context, _ []byte, _ *Sender) error {
			cancel()
			<-ctx.Done()
			cancelled <- context.Cause(ctx)
			return ctx.Err()
		}}
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	_, err = fetch(fetchCtx, client(t, g), l.Addr().String(), "go", fullView(g, 70, noise(1)), 70)
	if terse.CodeOf(err) != terse.CodeCancelled {
		t.Errorf("fetch: %v", err)
	}
	select {
	case <-cancelled:
	case <-time.After(patience):
		t.Error("the handler never heard of the cancel")
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Strangers on the data port are told so and harm nobody, and a fetch from
// something that is no data port says that.
func TestForeignProtocols(t *testing.T) {
	g := geometry(t, "f16")
	src := fullView(g, 70, noise(1))
	addr := peer{hello: hello(g), g: g, view: src, n: 70, chunk: 64, to: quick}.start(t)
	for _, say := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", strings.Repeat("\x00", 100), "x"} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(say))
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		var b [64]byte
		if n, err := conn.Read(b[:]); err == nil && n > 0 && say[0] == 'G' {
			t.Errorf("answered a stranger with %q", b[:n])
		}
		conn.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
			c.Close()
		}
	}()
	_, err = fetch(context.Background(), client(t, g), l.Addr().String(), "go", src, 70)
	if terse.CodeOf(err) != terse.CodeTransfer || !strings.Contains(err.Error(), "does not speak") {
		t.Errorf("got %v", err)
	}
}
