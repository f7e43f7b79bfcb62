package transfer

import (
	"fmt"
	"testing"

	"github.com/terse-llm/terse"
)

// The pages of a prefix that the decoder holds are neither sent nor written,
// whoever prefills, and whatever becomes of the first that does.
func TestHeldPagesAreNotSent(t *testing.T) {
	const n = 700
	for _, format := range []string{"f16", "hq3", "hack", "hack:v2"} {
		for _, held := range []int{0, 64, 64 + 63, 448} {
			t.Run(fmt.Sprintf("%s/%d", format, held), func(t *testing.T) {
				g := geometry(t, format)
				src := fullView(g, n, noise(7))
				dst := fullView(g, n, noise(9)) // held pages hold something else: that it stays shows
				p := newPlan(g, n, false)
				c := client(t, g)
				f := c.Begin(dst, n)
				defer f.End()
				f.Hold(held)
				if _, err := f.From(t.Context(), "127.0.0.1:1", []byte("go")); terse.CodeOf(err) != terse.CodeWorkerLost {
					t.Fatal(err)
				}
				other := peer{hello: hello(g), g: g, view: src, n: n, chunk: 100}
				other.hello.Numerics = "other" // nothing of the first counts, what was held does
				res, err := f.From(t.Context(), other.start(t), []byte("go"))
				if err != nil {
					t.Fatal(err)
				}
				whole := HandoverBytes(g, n)
				if res.Bytes+res.Held != whole || res.Again != 0 || (res.Held == 0) != (held < 64) {
					t.Errorf("%d bytes came, %d of them again, %d were held, of %d", res.Bytes, res.Again, res.Held, whole)
				}
				before := fullView(g, n, noise(9))
				for i := range p.count() {
					_, part := p.at(i)
					want := src
					if (p.parts[part].Page+1)*64 <= held {
						want = before
					}
					for _, s := range p.rows[0][part].spans {
						if string(p.page(dst, i)[s.Off:s.Off+s.Len]) != string(p.page(want, i)[s.Off:s.Off+s.Len]) {
							t.Fatalf("part %d of page %d is not what it should be", i, p.parts[part].Page)
						}
					}
				}
			})
		}
	}
}
