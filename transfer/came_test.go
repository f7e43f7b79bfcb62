package transfer

import (
	"bytes"
	"sync"
	"testing"

	"github.com/terse-llm/terse/quant"
)

// Who takes a prompt over as it comes is told of every part that was to come, when
// it is there, and of no other; by the time that all has come, of all.
func TestToldWhatCame(t *testing.T) {
	const n, held = 700, 64
	for _, format := range []string{"f16", "hq3", "hack:v2"} {
		g := geometry(t, format)
		src, dst, p := fullView(g, n, noise(7)), fullView(g, n, noise(9)), newPlan(g, n, false)
		want := map[quant.Piece][]int{} // the parts of each piece
		for i := range p.count() {
			layer, part := p.at(i)
			if q := p.parts[part]; (q.Page+1)*g.Format.PageTokens > held {
				piece := quant.Piece{Layer: layer, Page: q.Page, Coded: q.Coded}
				want[piece] = append(want[piece], i)
			}
		}
		var mu sync.Mutex
		told := map[quant.Piece]int{}
		dst.Came = func(pieces []quant.Piece) {
			mu.Lock()
			defer mu.Unlock()
			for _, piece := range pieces {
				if told[piece]++; told[piece] < len(want[piece]) {
					continue
				}
				for _, i := range want[piece] {
					got, sent := p.page(dst, i), p.page(src, i)
					for _, s := range p.place(i).spans {
						if !bytes.Equal(got[s.Off:s.Off+s.Len], sent[s.Off:s.Off+s.Len]) {
							t.Errorf("%s: told of %+v, which is not there", format, piece)
						}
					}
				}
			}
		}
		c := client(t, g)
		c.Timeouts = patient
		f := c.Begin(dst, n)
		f.Hold(held)
		if _, err := f.From(t.Context(), peer{hello: hello(g), g: g, view: src, n: n, chunk: 100, to: patient}.start(t), []byte("go")); err != nil {
			t.Fatal(err)
		}
		f.End()
		for piece, parts := range want {
			if told[piece] != len(parts) {
				t.Errorf("%s: told %d times of %+v, which has %d parts", format, told[piece], piece, len(parts))
			}
		}
		if len(told) != len(want) {
			t.Errorf("%s: told of %d pieces, %d were to come", format, len(told), len(want))
		}
	}
}
