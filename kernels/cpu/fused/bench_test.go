package fused

import (
	"fmt"
	"sync"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
)

// BenchmarkDecode is one query of 32 heads over 8 KV heads of 16K tokens, its QK
// and PV, per token and KV head: package exact's benchmark of the same name has the
// same shapes in float16. The package comment has the floors.
func BenchmarkDecode(b *testing.B) {
	const d = 128
	for _, at := range []struct {
		name  string
		pages int // of each of 8 KV heads
	}{{"16K", 256}, {"cache", 2}} {
		for _, bits := range []int{4, 8} {
			l := NewLayout(d, bits)
			data := make([]byte, (8*at.pages+1)*l.Bytes)
			for i := range data {
				data[i] = byte(i*7) & 0x3b // small numbers
			}
			for _, level := range cpu.Levels()[1:] {
				for _, threads := range []int{1, 2} {
					b.Run(fmt.Sprintf("%s/32q8kv/d%d/int%d/%v/%dT", at.name, d, bits, level, threads), func(b *testing.B) {
						decode(b, For(level), &l, data, at.pages, threads)
					})
				}
			}
		}
	}
}

func decode(b *testing.B, k Kernels, l *Layout, data []byte, pages, threads int) {
	b.ReportAllocs()
	var wg sync.WaitGroup
	for thread := range threads {
		wg.Go(func() {
			w, acc := make([]float32, 4*pageTokens), make([]float32, 4*l.Width)
			var p Queries
			p.Prepare(l, make([]float32, 4*l.HeadDim), 4)
			for range b.N {
				for i := range 8 * pages {
					if i/pages%threads == thread {
						page := data[i*l.Bytes : (i+1)*l.Bytes]
						k.QK(w, pageTokens, &p, l, page, page[l.Halves[quant.HalfV].Scales:])
						k.PV(acc, 4, w, pageTokens, l, page, data[(i+1)*l.Bytes:])
					}
				}
			}
		})
	}
	wg.Wait()
	tokens := float64(b.N) * float64(8*pages*pageTokens)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/tokens, "ns/token-head")
	b.ReportMetric(tokens*float64(l.Bytes)/pageTokens/float64(b.Elapsed().Nanoseconds()), "GB/s")
}

// BenchmarkPage is one page in cache.
func BenchmarkPage(b *testing.B) {
	const d = 128
	for _, bits := range []int{4, 8} {
		l := NewLayout(d, bits)
		page := make([]byte, l.Bytes)
		for _, level := range cpu.Levels() {
			for _, n := range []int{1, 2, 4, 64} {
				var p Queries
				p.Prepare(&l, make([]float32, n*d), n)
				w, acc := make([]float32, n*pageTokens), make([]float32, n*l.Width)
				report := func(b *testing.B) { // 48 is about the peak of two 256-bit units at 3 GHz
					b.ReportMetric(float64(b.N)*float64(n*64*d)/float64(b.Elapsed().Nanoseconds()), "Gfma/s")
				}
				b.Run(fmt.Sprintf("QK/%dx64/d%d/int%d/%v", n, d, bits, level), func(b *testing.B) {
					for b.Loop() {
						For(level).QK(w, pageTokens, &p, &l, page, nil)
					}
					report(b)
				})
				b.Run(fmt.Sprintf("PV/%dx64/d%d/int%d/%v", n, d, bits, level), func(b *testing.B) {
					for b.Loop() {
						For(level).PV(acc, n, w, pageTokens, &l, page, nil)
					}
					report(b)
				})
			}
		}
	}
}
