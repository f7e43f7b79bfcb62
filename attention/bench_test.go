package attention

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/quant"
)

// BenchmarkCache is what the KV cache costs a layer of a Llama-3.2-1B in
// prefill, besides attention itself: a chunk of 512 tokens taken into the basis,
// stored and coded, queries turned and outputs turned back. 2 % of a prefill of
// 5 ms a token are 6,250 ns for a token and layer.
func BenchmarkCache(b *testing.B) {
	const tokens, heads, kvHeads, d = 512, 32, 8, 64
	for _, format := range []string{"f16", "hq2", "hq3", "hack"} {
		for threads := 1; threads <= 2; threads++ {
			b.Run(fmt.Sprintf("%d-%dx%d/%s/%d-threads", tokens, kvHeads, d, format, threads), func(b *testing.B) {
				f, err := quant.ParseFormat(format, true)
				if err != nil {
					b.Fatal(err)
				}
				g, err := quant.NewGeometry(f, 1, kvHeads, d)
				if err != nil {
					b.Fatal(err)
				}
				r := rand.New(rand.NewPCG(1, 1))
				random := func(n int) []float32 {
					x := make([]float32, n)
					for i := range x {
						x[i] = float32(r.NormFloat64())
					}
					return x
				}
				tf, err := quant.NewTransform(g, &quant.Calibration{
					Layers: 1, KVHeads: kvHeads, HeadDim: d, KMean: random(kvHeads * d), VMean: random(kvHeads * d),
				})
				if err != nil {
					b.Fatal(err)
				}
				view := &quant.View{Geometry: g}
				for range tokens / f.PageTokens {
					view.Exact = append(view.Exact, make([]byte, g.ExactBytes()))
					view.Coded = append(view.Coded, make([]byte, g.CodedBytes()))
				}
				ops := cpu.Best(threads)
				defer ops.Close()
				run := New(ops, g, tf, 1)
				k, v := random(tokens*kvHeads*d), random(tokens*kvHeads*d)
				q, out := random(tokens*heads*d), random(tokens*heads*d)
				b.ReportAllocs()
				for b.Loop() {
					run.Append(view, 0, 0, k, v)
					run.transform.Queries(ops, 0, q, heads)
					run.transform.Outputs(ops, 0, out, heads)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tokens), "ns/token")
			})
		}
	}
}
