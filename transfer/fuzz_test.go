package transfer

import (
	"bytes"
	"testing"

	"github.com/terse-llm/terse/quant"
)

// FuzzFrames feeds a receiver whatever bytes: it must end, without a panic and
// without writing outside the parts it reserved.
func FuzzFrames(f *testing.F) {
	fm, err := quant.ParseFormat("hq2", true)
	if err != nil {
		f.Fatal(err)
	}
	g, err := quant.NewGeometry(fm, 2, 1, 64)
	if err != nil {
		f.Fatal(err)
	}
	const n = 300
	var good bytes.Buffer
	w := &writer{w: &good, epoch: 1}
	progress := NewProgress(g, n)
	src := fullView(g, n, noise(3))
	for layer := range g.Layers {
		parts := progress.Ready(layer, n)
		bufs := [][]byte{encodeParts(parts)}
		for _, p := range parts {
			for _, s := range g.PartSpans(p) {
				bufs = append(bufs, pageOf(src, p, layer)[s.Off:s.Off+s.Len])
			}
		}
		w.write(frameKV, uint16(layer), uint32(len(parts)), bufs...)
	}
	w.write(frameDone, 0, 0, []byte("x"))
	f.Add(good.Bytes())
	f.Add(good.Bytes()[:100])
	f.Add([]byte("TKVW\x01\x03\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := &fetch{
			conn: silentConn{}, view: fullView(g, n, func([]byte) {}), progress: NewProgress(g, n), to: quick,
			r: &reader{r: bytes.NewReader(b), epoch: 1, maxKV: maxFrame(g, n)},
		}
		if err := x.receive(); err == nil && x.progress.left != 0 {
			t.Fatal("an incomplete hand-over was taken for a whole one")
		}
	})
}

// FuzzHello reads hostile handshakes and part tables.
func FuzzHello(f *testing.F) {
	f.Add([]byte(`{"Worker":"p1","Layers":3}`))
	f.Add(encodeParts([]quant.Part{{Page: 1, Coded: true, Hi: 64, K: true, V: true}, {Page: 9, Lo: 3, Hi: 5, V: true}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := decodeHello(b); err == nil {
			_ = h.match(Hello{})
		}
		if parts, err := decodeParts(b); err == nil && !bytes.Equal(encodeParts(parts), b) {
			t.Fatal("part table does not survive the round trip")
		}
	})
}
