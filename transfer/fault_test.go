package transfer

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
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
	defer c.Close() // the next script's connections count from 0
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
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
	p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 128}
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

// randomScript is a few faults anywhere.
func randomScript(r *rand.Rand, bytes int64) string {
	var rules []string
	for range 1 + r.IntN(4) {
		dir := []string{"up", "down", "down", "down"}[r.IntN(4)]
		conn := ""
		if r.IntN(3) > 0 {
			conn = fmt.Sprintf("conn %d ", r.IntN(3))
		}
		what := []string{"drop", "delay", "reorder", "duplicate", "truncate", "corrupt", "half-close", "stall", "kill"}[r.IntN(9)]
		place := fmt.Sprintf("frame %d", r.IntN(12))
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
	p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 64}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for name, w := range paths(t, p) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, uint64(len(name))))
			for range scripts {
				w.through(t, g, src, n, randomScript(r, HandoverBytes(g, n)), either)
			}
		})
	}
}

// serve serves p on a listener until the test ends.
func (p peer) serve(t testing.TB, l net.Listener, change ...func(*Server)) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	s := &Server{Hello: p.hello, Geometry: p.g, Handler: p.handle, Key: p.key, Timeouts: quick, Logger: slog.New(slog.DiscardHandler)}
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
