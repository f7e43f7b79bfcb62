package transfer

import (
	"fmt"
	"testing"

	"github.com/terse-llm/terse/quant"
)

// BenchmarkFetch moves a prompt over loopback, both sides in this process. The
// floor is the slower side's work on a byte: for the sender a checksum and the
// kernel's copy into the socket, for the receiver the copy out, a checksum and
// the copy into the page.
func BenchmarkFetch(b *testing.B) {
	for _, format := range []string{"f16", "hq3"} {
		for _, conns := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/%d", format, conns), func(b *testing.B) {
				f, err := quant.ParseFormat(format, true)
				if err != nil {
					b.Fatal(err)
				}
				g, err := quant.NewGeometry(f, 16, 8, 128)
				if err != nil {
					b.Fatal(err)
				}
				const n = 1024
				addr := peer{hello: hello(g), g: g, view: fullView(g, n, noise(1)), n: n, chunk: n}.start(b)
				c := client(b, g)
				c.Conns = conns
				dst := fullView(g, n, func([]byte) {})
				b.SetBytes(HandoverBytes(g, n))
				for b.Loop() {
					if _, err := fetch(b.Context(), c, addr, "go", dst, n); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
