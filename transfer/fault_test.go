package transfer

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/transfer/mem"
	"github.com/terse-llm/terse/transfer/tcp"
)

// framing is how fault scripts count our frames.
var framing = mem.Framing{Head: HeaderLen, Size: FrameSize}

// path is one way from a decoder to a prefiller, through a script.
type path struct {
	set  func(mem.Script)
	addr string
	dial func(context.Context, string) (net.Conn, error)
}

// paths are the script's two transports to a peer.
func paths(t *testing.T, p peer) map[string]path {
	t.Helper()
	relay, err := mem.NewRelay(p.start(t), framing, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { relay.Close() })
	network := mem.NewNetwork(framing, nil)
	l, err := network.Listen("prefill")
	if err != nil {
		t.Fatal(err)
	}
	p.serve(t, l)
	t.Cleanup(func() { network.Close() })
	return map[string]path{
		"sockets": {relay.Set, relay.Addr(), tcp.Dial},
		"memory":  {network.Set, "prefill", network.Dial},
	}
}

// outcome of a fetch through a script.
type outcome int

const (
	right  outcome = iota // everything arrived
	failed                // a typed error
	either
)

// timeoutsFor are a decoder's: where only silence ends what a script does, it has to be
// noticed, and where what is right must come, nothing else may be.
func timeoutsFor(script string, want outcome) Timeouts {
	switch {
	case want != right:
		return quick
	case strings.Contains(script, "stall"):
		return patient
	}
	return calm
}

// through fetches by a path and checks what every script must keep: the right
// pages or a typed error, soon.
func (w path) through(t *testing.T, g *quant.Geometry, src *quant.View, n int, text string, want outcome) Result {
	t.Helper()
	script, err := mem.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	w.set(script)
	c := client(t, g)
	c.Dial = w.dial
	c.Timeouts = timeoutsFor(text, want)
	defer c.Close() // the next script's connections count from 0
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dst := fullView(g, n, func([]byte) {})
	res, err := fetch(ctx, c, w.addr, "go", dst, n)
	if ctx.Err() != nil {
		t.Fatalf("%s: hung", text)
	}
	if want != either && (err != nil) != (want == failed) {
		t.Fatalf("%s: error %v", text, err)
	}
	if err == nil {
		sameHandover(t, g, n, src, dst)
		return res
	}
	if code := terse.CodeOf(err); code != terse.CodeTransfer && code != terse.CodeWorkerLost {
		t.Fatalf("%s: code %s of %v", text, code, err)
	}
	return res
}

// Whatever happens to one connection, the transfer goes on over another, and
// what happens to all of them ends it soon, by a typed error.
func TestFaults(t *testing.T) {
	g := geometry(t, "hq3")
	const n = 700
	src := fullView(g, n, noise(9))
	p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 128, to: patient}
	for name, w := range paths(t, p) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := func(script string, want outcome) {
				t.Helper()
				w.through(t, g, src, n, script, want)
			}
			f("", right)
			f("down delay frame 1 30ms; down delay byte 30000 50ms", right)
			for _, what := range []string{"drop", "duplicate", "reorder", "truncate", "corrupt", "kill", "half-close"} {
				for frame := 2; frame < 7; frame++ {
					f(fmt.Sprintf("down conn 0 %s frame %d", what, frame), right)
				}
			}
			for dir, what := range map[string]string{"up": "reorder", "down": "truncate"} {
				f(fmt.Sprintf("%s %s frame 1", dir, what), either)
				f(fmt.Sprintf("%s %s frame 2", dir, what), either)
			}
			f("down conn 0 stall frame 3", right)
			f("down corrupt frame 1", failed)
			f("up corrupt byte 40", failed)
			f("up kill byte 10", failed)
			f("up stall byte 100", failed)
			f("down stall byte 300", failed)
			f("down kill frame 5", right) // each connection brings some frames
		})
	}
}

// A frame at a time is under way of a transfer with a window like this.
const narrow = 4096

// apart is through with second planes that come apart: the right pages as far as
// there are any, whatever the script does, or a typed error. It returns the pages
// without second planes.
func (w path) apart(t *testing.T, g *quant.Geometry, src *quant.View, n int, window int64, text string, want outcome) (missing []int) {
	t.Helper()
	script, err := mem.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	w.set(script)
	c := client(t, g)
	c.Dial, c.Window, c.Timeouts = w.dial, window, timeoutsFor(text, want)
	defer c.Close()
	dst := fullView(g, n, func([]byte) {})
	f := c.Begin(dst, n)
	f.Apart()
	var lost error
	f.Lost = func(err error) { lost = err }
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = f.From(ctx, w.addr, []byte("go"))
	if ctx.Err() != nil {
		t.Fatalf("%s: hung", text)
	}
	if want != either && (err != nil) != (want == failed) {
		t.Fatalf("%s: error %v", text, err)
	}
	if err == nil {
		select {
		case <-f.over:
			err = lost
		case <-ctx.Done():
			t.Fatalf("%s: second planes neither come nor are lost", text)
		}
		missing = f.Missing()
		if (err != nil) != (len(missing) > 0) {
			t.Fatalf("%s: pages %v have no second planes, error %v", text, missing, err)
		}
		f.End()
		sameApart(t, text, g, n, src, dst, missing)
	}
	f.End()
	if code := terse.CodeOf(err); err != nil && code != terse.CodeTransfer && code != terse.CodeWorkerLost {
		t.Fatalf("%s: code %s of %v", text, code, err)
	}
	return missing
}

// sameApart compares what came with what was sent, but for second planes of the
// missing pages.
func sameApart(t *testing.T, what string, g *quant.Geometry, n int, want, got *quant.View, missing []int) {
	t.Helper()
	p := newPlan(g, n, true)
	for i := range p.count() {
		part := p.parts[i%len(p.parts)]
		if part.Planes == quant.SecondPlane && slices.Contains(missing, part.Page) {
			continue
		}
		a, err := p.appendBytes(nil, want, i, new(packer))
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.appendBytes(nil, got, i, new(packer))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) {
			t.Fatalf("%s: part %d differs from what was sent", what, i)
		}
	}
}

// amidSecond is where on a connection decoding has begun and second planes are under
// way: in bytes, since there are as many pings between as time goes by.
func amidSecond(p *plan) int64 {
	var first, second int64
	for n := range p.count() {
		if size := int64(p.bytesOf(n)); p.later(n) {
			second += size
		} else {
			first += size
		}
	}
	return first + second/2
}

// Whatever happens to the connection that second planes come over, decoding has
// begun, they come over another or it is known that they will not, and what is there
// is right; and so it is with what comes before them.
func TestFaultsApart(t *testing.T) {
	const n = 700
	for _, format := range []string{"hq4", "hq2,k2=tokens:8"} {
		g := geometry(t, format)
		src := fullView(g, n, noise(9))
		plan := newPlan(g, n, true)
		first := 0 // frames until then, and some pings
		for i := range plan.count() {
			if !plan.later(i) {
				first++
			}
		}
		p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 128, to: patient}
		for name, w := range paths(t, p) {
			t.Run(format+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := func(script string, want outcome, all bool) {
					t.Helper()
					if missing := w.apart(t, g, src, n, narrow, script, want); all && len(missing) > 0 {
						t.Errorf("%s: pages %v have no second planes", script, missing)
					}
				}
				f("", right, true)
				for _, what := range []string{"drop", "duplicate", "reorder", "truncate", "corrupt", "half-close", "stall", "kill"} {
					for _, frame := range []int{first / 2, first + 8, first + 20} {
						f(fmt.Sprintf("down conn 0 %s frame %d", what, frame), right, true)
					}
				}
				f(fmt.Sprintf("down delay frame %d 30ms; up delay frame 9 20ms", first+8), right, true)
				f(fmt.Sprintf("up conn 0 kill frame %d", first/2), right, true)
				f(fmt.Sprintf("up conn 0 stall frame %d", first/2), right, true)
				// No connection gets anywhere: the first one brings what decoding begins on.
				f(fmt.Sprintf("down conn 0 kill byte %d; down conn 1 kill byte 0; down conn 2 kill byte 0; down conn 3 kill byte 0; down conn 4 kill byte 0", amidSecond(plan)), right, false)
				f("down kill byte 2000", failed, false)
			})
		}
	}
}

// What a worker computed anew fits no planes of before: where it does not know the
// transfer any more it begins again, or, where decoding has begun, not at all.
func TestApartIsNotMixed(t *testing.T) {
	const n = 700
	g := geometry(t, "hq4")
	views := []*quant.View{fullView(g, n, noise(1)), fullView(g, n, noise(2))}
	p := peer{hello: hello(g), g: g, n: n, chunk: 128}
	for _, begun := range []bool{false, true} {
		l, err := tcp.Listen("127.0.0.1:0", nil)
		if err != nil {
			t.Fatal(err)
		}
		var computed atomic.Int32
		p.to = calm
		p.to.Lease = 10 * time.Millisecond
		server := p.serve(t, l, func(s *Server) {
			s.Handler = func(ctx context.Context, request []byte, to *Sender) error {
				p := p
				p.view = views[min(computed.Add(1), 2)-1]
				return p.handle(ctx, request, to)
			}
		})
		at := amidSecond(newPlan(g, n, true))
		if !begun {
			at /= 4
		}
		script, err := mem.Parse(fmt.Sprintf("down conn 0 kill byte %d", at))
		if err != nil {
			t.Fatal(err)
		}
		relay, err := mem.NewRelay(l.Addr().String(), framing, script)
		if err != nil {
			t.Fatal(err)
		}
		c := client(t, g)
		c.Window = narrow
		dials := 0
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			for dials++; dials == 2 && server.Transfers() > 0; { // it takes longer than the lease
				time.Sleep(time.Millisecond)
			}
			return tcp.Dial(ctx, addr)
		}
		dst := fullView(g, n, func([]byte) {})
		f := c.Begin(dst, n)
		f.Apart()
		if _, err = f.From(t.Context(), relay.Addr(), []byte("go")); err != nil {
			t.Fatal(err)
		}
		<-f.over
		missing := f.Missing()
		f.End()
		want, times := views[1], int32(2)
		if begun {
			want, times = views[0], 1
		}
		if (len(missing) > 0) != begun || computed.Load() != times {
			t.Errorf("begun %v: pages %v are missing, computed %d times", begun, missing, computed.Load())
		}
		sameApart(t, fmt.Sprint("begun ", begun), g, n, want, dst, missing)
		c.Close()
		relay.Close()
	}
}

// randomScript is a few faults anywhere.
func randomScript(r *rand.Rand, frames int, bytes int64) string {
	var rules []string
	for range 1 + r.IntN(4) {
		dir := []string{"up", "down", "down", "down"}[r.IntN(4)]
		conn := ""
		if r.IntN(3) > 0 {
			conn = fmt.Sprintf("conn %d ", r.IntN(3))
		}
		what := []string{"drop", "delay", "reorder", "duplicate", "truncate", "corrupt", "half-close", "stall", "kill"}[r.IntN(9)]
		place := fmt.Sprintf("frame %d", r.IntN(frames))
		if r.IntN(2) == 0 && what != "reorder" && what != "duplicate" && what != "truncate" {
			place = fmt.Sprintf("byte %d", r.Int64N(bytes))
		}
		if what == "delay" {
			place += fmt.Sprintf(" %dms", r.IntN(40))
		}
		rules = append(rules, fmt.Sprintf("%s %s%s %s", dir, conn, what, place))
	}
	return strings.Join(rules, "; ")
}

// Any script at all gives the right pages or a typed error.
func TestRandomFaults(t *testing.T) {
	g := geometry(t, "hq2")
	const n = 500
	scripts := 25
	if testing.Short() {
		scripts = 10
	}
	src := fullView(g, n, noise(5))
	p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 64, to: quick}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for name, w := range paths(t, p) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(len(name))))
			for range scripts {
				w.through(t, g, src, n, randomScript(r, 12, HandoverBytes(g, n)), either)
			}
		})
	}
	two := geometry(t, "hq4")
	whole := fullView(two, n, noise(5))
	for name, w := range paths(t, peer{hello: hello(two), g: two, view: whole, n: n, chunk: 64, to: quick}) {
		t.Run("apart/"+name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(len(name))))
			for range scripts {
				w.apart(t, two, whole, n, 16*narrow, randomScript(r, 15, HandoverBytes(two, n)), either)
			}
		})
	}
}

// serve serves p on a listener until the test ends.
func (p peer) serve(t testing.TB, l net.Listener, change ...func(*Server)) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	to := p.to
	if to == (Timeouts{}) {
		to = calm
	}
	s := &Server{Hello: p.hello, Geometry: p.g, Handler: p.handle, Key: p.key, Timeouts: to, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(s)
	}
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}
