package transfer

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/terse-llm/terse/quant"
)

// recording is a connection whose input is bytes and whose output is kept.
type recording struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (c *recording) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *recording) Write(b []byte) (int, error)      { return c.out.Write(b) }
func (c *recording) Close() error                     { return nil }
func (c *recording) SetReadDeadline(time.Time) error  { return nil }
func (c *recording) SetWriteDeadline(time.Time) error { return nil }

// recorded is a link that reads b, past the handshake.
func recorded(b []byte, g *quant.Geometry) (*link, *recording) {
	c := &recording{in: bytes.NewReader(b)}
	l := newLink(c, calm.orDefault(), maxFrame(g))
	l.peer.Layers = g.Layers
	return l, c
}

func smallGeometry(t testing.TB) *quant.Geometry { return smallOf(t, "hq2") }

func smallOf(t testing.TB, format string) *quant.Geometry {
	fm, err := quant.ParseFormat(format, true)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(fm, 2, 1, 64)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// FuzzFetch feeds a decoder whatever bytes: it must end, without a panic and
// without writing outside the parts it reserved.
func FuzzFetch(f *testing.F) {
	const n = 300
	type setting struct {
		c   *Client
		p   *plan
		src *quant.View
	}
	settings := map[bool]setting{} // range-coded ones, and others
	for packed, format := range map[bool]string{false: "hq2", true: "cachegen"} {
		g := smallOf(f, format)
		src := fullView(g, n, noise(3))
		writer, good := recorded(nil, g)
		p := newPlan(g, n, false)
		for layer := range g.Layers {
			s := span{uint32(layer * len(p.parts)), uint32(len(p.parts))}
			bufs := [][]byte{appendSpans(nil, []span{s})}
			for i := s.first; i < s.first+s.count; i++ {
				bufs, _ = p.appendBytes(bufs, src, int(i), new(packer))
			}
			writer.send(header{kind: frameKV, lease: 7, epoch: 1, ranges: 1}, bufs...)
		}
		writer.send(header{kind: frameDone, lease: 7, epoch: 1}, make([]byte, doneHead+1))
		f.Add(good.out.Bytes(), packed)
		f.Add(good.out.Bytes()[:100], packed)
		settings[packed] = setting{&Client{Geometry: g}, p, src}
	}
	f.Add([]byte("TKVW\x02\x09\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00"), false)
	f.Fuzz(func(t *testing.T, b []byte, packed bool) {
		at := settings[packed]
		g, p := at.p.g, at.p
		x := at.c.Begin(fullView(g, n, func([]byte) {}), n)
		l, _ := recorded(b, g)
		x.lease, x.epoch, x.links = 7, 1, []*link{l}
		l.user.Store(x)
		if err := l.listen(); err == nil {
			t.Fatal("a stream without an end")
		}
		x.settle()
		whole := true
		for i := range x.state {
			whole = whole && bytes.Equal(bytesOfPart(p, at.src, i), bytesOfPart(p, x.view, i))
		}
		if x.left == 0 && !whole {
			t.Fatal("all parts came, and they are wrong")
		}
		x.End()
	})
}

func bytesOfPart(p *plan, v *quant.View, n int) []byte {
	bufs, _ := p.appendBytes(nil, v, n, new(packer))
	return bytes.Join(bufs, nil)
}

// FuzzServer feeds a prefiller's connection whatever bytes, after a handshake
// and before one.
func FuzzServer(f *testing.F) {
	g := smallGeometry(f)
	l, good := recorded(nil, g)
	l.send(header{kind: frameJoin, lease: 9, epoch: 1})
	l.send(header{kind: frameAck, lease: 9, epoch: 1, ranges: 1}, appendSpans(nil, []span{{0, 2}}))
	l.send(header{kind: frameCancel, lease: 9, epoch: 1})
	f.Add(good.out.Bytes(), true)
	l, good = recorded(nil, g)
	l.sendJSON(frameOpen, opening{newNonce(), false})
	l.sendJSON(frameHello, hello(g))
	f.Add(good.out.Bytes(), false)
	f.Fuzz(func(t *testing.T, b []byte, greeted bool) {
		s := &Server{Hello: hello(g), Geometry: g, transfers: map[uint64]*Sender{}, links: map[*link]bool{}, closing: true}
		sender := newSender(g, 300, false, 9, 1<<20, calm.orDefault())
		sender.err, sender.peer = errStopped, "d1"
		s.transfers[9] = sender
		l, _ := recorded(b, g)
		if !greeted {
			l.peer.Layers = 0
			if l.welcome(s.Hello, nil) != nil {
				return
			}
		}
		l.of.Store(sender)
		if err := s.listen(t.Context(), l); err == nil {
			t.Fatal("a stream without an end")
		}
	})
}

// FuzzDecoders reads hostile handshakes and range tables.
func FuzzDecoders(f *testing.F) {
	f.Add([]byte(`{"Worker":"p1","Layers":3}`))
	f.Add([]byte(`{"Nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","Sealed":true}`))
	f.Add(appendSpans(nil, []span{{0, 3}, {3, 1}, {9, 2}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHello(b); err == nil {
			_ = h.match(Hello{})
		}
		if o, err := decodeOpening(b); err == nil && len(o.Nonce) != nonceLen {
			t.Fatal("a nonce of another size")
		}
		h := header{ranges: uint32(len(b) / rangeLen)}
		if spans, rest, err := decodeSpans(&h, b, 1000); err == nil && !bytes.Equal(append(appendSpans(nil, spans), rest...), b) {
			t.Fatal("ranges do not survive the round trip")
		}
		if len(b) >= HeaderLen {
			if h, err := decodeHeader(b); err == nil {
				again := make([]byte, HeaderLen)
				if h.encode(again); !bytes.Equal(again, b[:HeaderLen]) {
					t.Fatal("a header does not survive the round trip")
				}
			}
		}
	})
}
