package transfer

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
)

// Range-coded pages survive what others do: parts are units of their own.
func TestFaultsOfPacked(t *testing.T) {
	g := geometry(t, "cachegen")
	const n = 700
	src := fullView(g, n, noise(9))
	for name, w := range paths(t, peer{hello: hello(g), g: g, view: src, n: n, chunk: 128}) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, what := range []string{"drop", "duplicate", "reorder", "truncate", "corrupt", "kill", "half-close"} {
				for _, frame := range []int{2, 4, 6} {
					w.through(t, g, src, n, fmt.Sprintf("down conn 0 %s frame %d", what, frame), right)
				}
			}
		})
	}
}

// What a fetch says of packed parts is what came: fewer bytes than may come, all of
// them decoded, in the time of somebody's core.
func TestPackedResult(t *testing.T) {
	g := geometry(t, "cachegen")
	const n = 700
	src := fullView(g, n, noise(9))
	addr := peer{hello: hello(g), g: g, view: src, n: n, chunk: 128}.start(t)
	res, err := fetch(t.Context(), client(t, g), addr, "go", fullView(g, n, func([]byte) {}), n)
	if err != nil {
		t.Fatal(err)
	}
	if want := handoverBytes(t, g, n, src); res.Bytes != want || res.Bytes >= newPlan(g, n, false).total() {
		t.Errorf("%d bytes came, %d were packed, %d would be the most", res.Bytes, want, newPlan(g, n, false).total())
	}
	if res.Unpack <= 0 {
		t.Error("nothing was decoded")
	}
}

// A page that does not decode, whole as its frame is, ends its connection, and is
// missing as before: others may send it.
func TestBrokenPack(t *testing.T) {
	g := geometry(t, "cachegen")
	const n = 300
	src := fullView(g, n, noise(1))
	p := newPlan(g, n, false)
	for what, damage := range map[string]func(part []byte){
		"levels": func(part []byte) { part[len(part)-1] ^= 0x40; part[len(part)-7] ^= 0x11 },
		"scale":  func(part []byte) { part[5] = 0x7c },
		"states": func(part []byte) { part[4+4*64+3] ^= 0x20 },
	} {
		c := &Client{Geometry: g}
		x := c.Begin(fullView(g, n, func([]byte) {}), n)
		w, out := recorded(nil, g)
		bufs, err := p.appendBytes([][]byte{appendSpans(nil, []span{{0, 1}})}, src, 0, new(packer))
		if err != nil {
			t.Fatal(err)
		}
		damage(bufs[1])
		w.send(header{kind: frameKV, lease: 7, epoch: 1, ranges: 1}, bufs...)
		l, _ := recorded(out.out.Bytes(), g)
		x.lease, x.epoch, x.links = 7, 1, []*link{l}
		l.user.Store(x)
		_ = l.listen()
		x.settle()
		c.running.Wait()
		if l.alive() || terse.CodeOf(l.err) != terse.CodeTransfer || !strings.Contains(l.err.Error(), "cannot take over KV") {
			t.Errorf("%s: the link goes on (%v)", what, l.err)
		}
		if x.state[0] != partMissing || x.left != p.count() {
			t.Errorf("%s: a part that is broken was taken", what)
		}
		x.End()
	}
}

// The sender says what coding takes of a core, and how much it has really sent.
func TestPackTime(t *testing.T) {
	g := geometry(t, "cachegen")
	const n = 700
	src := fullView(g, n, noise(9))
	senders := make(chan *Sender, 1)
	p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 128, after: func(s *Sender) { senders <- s }}
	res, err := fetch(context.Background(), client(t, g), p.start(t), "go", fullView(g, n, func([]byte) {}), n)
	if err != nil {
		t.Fatal(err)
	}
	s := <-senders
	if sent, took := s.Bytes(), s.PackTime(); sent != res.Bytes || took <= 0 {
		t.Errorf("%d bytes were sent in %v of coding, %d came", sent, took, res.Bytes)
	}
}
