package transfer

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// Second planes that may come later come later, and where they belong; what was
// asked for whole comes whole from the same worker.
func TestApart(t *testing.T) {
	const n = 700
	for _, format := range []string{"hq3", "hq4", "hq2,k2=lead:16", "hq2,k2=tokens:8,v2=tokens:16"} {
		for _, held := range []int{0, 256} {
			g := geometry(t, format)
			src, dst := fullView(g, n, noise(7)), fullView(g, n, func([]byte) {})
			addr := peer{hello: hello(g), g: g, view: src, n: n, chunk: 100}.start(t)
			c := client(t, g)
			f := c.Begin(dst, n)
			f.Hold(held)
			if !f.Apart() {
				t.Fatalf("%s has no second planes", format)
			}
			res, err := f.From(t.Context(), addr, []byte("go"))
			if err != nil || string(res.Done) != "first token" {
				t.Fatalf("%q, %v", res.Done, err)
			}
			for limit := time.Now().Add(patience); len(f.Missing()) > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatalf("%s: pages %v have no second planes", format, f.Missing())
				}
			}
			f.Stop()
			f.Stop() // again: nothing happens
			want := fullView(g, n, func([]byte) {})
			p := newPlan(g, n, true)
			for i := range p.count() {
				if _, part := p.at(i); (p.parts[part].Page+1)*64 <= held {
					continue
				}
				from, err := p.appendBytes(nil, src, i, new(packer))
				if err != nil {
					t.Fatal(err)
				}
				p.put(p.page(want, i), i, bytes.Join(from, nil))
			}
			for i := range want.Coded {
				if !bytes.Equal(dst.Coded[i], want.Coded[i]) || !bytes.Equal(dst.Exact[i], want.Exact[i]) {
					t.Fatalf("%s, %d held: page %d is not what was sent", format, held, i)
				}
			}
			whole := fullView(g, n, func([]byte) {})
			if _, err := fetch(t.Context(), c, addr, "go", whole, n); err != nil {
				t.Fatal(err)
			}
			sameHandover(t, g, n, src, whole)
		}
	}
	g := geometry(t, "hq2")
	f := client(t, g).Begin(fullView(g, n, func([]byte) {}), n)
	defer f.End()
	if f.Apart() {
		t.Error("hq2 has second planes")
	}
}

// pipeListener accepts what is put into it.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	conn, ok := <-l
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l pipeListener) Close() error { close(l); return nil }

func (pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// Second planes wait for the answer, which decoding waits for, even where it is held
// up on one connection and another is free.
func TestApartAnswerComesFirst(t *testing.T) {
	const n = 700
	g := geometry(t, "hq4")
	p := newPlan(g, n, true)
	pipes := make(pipeListener)
	peer{hello: hello(g), g: g, view: fullView(g, n, noise(7)), n: n, chunk: n}.serve(t, pipes)
	open := func() *link {
		ours, theirs := net.Pipe() // what is written waits until it is read
		pipes <- theirs
		l := newLink(ours, calm, maxFrame(g))
		if err := l.greet(client(t, g).Hello, nil); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.fail(errStopped) })
		return l
	}
	read := func(l *link) (kind frameType, later bool) {
		h, payload, err := l.read()
		if err != nil {
			t.Fatal(err)
		}
		if h.kind == frameKV {
			spans, _, err := decodeSpans(&h, payload, p.count())
			if err != nil {
				t.Fatal(err)
			}
			later = p.later(int(spans[0].first))
		}
		return h.kind, later
	}
	control, lane := open(), open()
	head := binary.LittleEndian.AppendUint32(nil, n)
	head = binary.LittleEndian.AppendUint64(head, 1<<30)
	head = binary.LittleEndian.AppendUint32(head, flagApart)
	if err := control.send(header{kind: frameRequest, lease: 1, epoch: 1}, head, []byte("go")); err != nil {
		t.Fatal(err)
	}
	for kind := framePing; kind != frameAccept; {
		kind, _ = read(control)
	}
	if err := lane.send(header{kind: frameJoin, lease: 1, epoch: 1}); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(200 * time.Millisecond); time.Now().Before(limit); {
		if _, later := read(lane); later {
			t.Fatal("second planes came before the answer")
		}
	}
	for kind := framePing; kind != frameDone; {
		kind, _ = read(control)
	}
	for later := false; !later; {
		_, later = read(lane)
	}
}

// A decoder that has begun and leaves gets no byte more, and the prefill side lets
// go; one whose worker is lost keeps what it has.
func TestApartLeft(t *testing.T) {
	const n = 4096
	g := geometry(t, "hq4")
	src := fullView(g, n, noise(7))
	for _, lose := range []bool{false, true} {
		p := peer{hello: hello(g), g: g, view: src, n: n, chunk: 512}
		addr := p.start(t)
		c := client(t, g)
		c.Window = 4096
		dst := fullView(g, n, func([]byte) {})
		f := c.Begin(dst, n)
		f.Apart()
		if _, err := f.From(t.Context(), addr, []byte("go")); err != nil {
			t.Fatal(err)
		}
		if lose {
			c.Close()
		}
		f.Stop()
		var before []byte
		for _, page := range dst.Coded {
			before = append(before, page...)
		}
		time.Sleep(20 * time.Millisecond)
		if !bytes.Equal(before, bytes.Join(dst.Coded, nil)) {
			t.Fatal("pages were written after Stop")
		}
		for _, tops := range g.TopSpans() {
			if !bytes.Equal(dst.Coded[5][tops.Off:tops.Off+tops.Len], src.Coded[5][tops.Off:tops.Off+tops.Len]) {
				t.Fatal("top planes are not what was sent")
			}
		}
	}
}
