package codes

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
)

// BenchmarkPlanes prints nanoseconds per token of one plane of a tile in the first
// cache, d = 128. The floors are in the package's comment.
func BenchmarkPlanes(b *testing.B) {
	const width = 128
	r := rand.New(rand.NewPCG(1, 1))
	var keys, values [][]byte
	for range 4 {
		keys = append(keys, randomPlane(r, quant.HalfK, width, 64).words)
		values = append(values, randomPlane(r, quant.HalfV, width, 64).words)
	}
	q, p := make([]int8, 4*width), make([]uint8, 4*Tokens)
	dots, sums := make([]int32, 4*Tokens), make([]int32, 4*width)
	for _, l := range cpu.Levels() {
		k := For(l)
		for _, nq := range []int{1, 2, 4} {
			run := func(name string, f func()) {
				b.Run(fmt.Sprintf("%s/%d/%v", name, nq, l), func(b *testing.B) {
					for b.Loop() {
						f()
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/Tokens, "ns/token")
				})
			}
			run("products", func() { k.PageProducts(dots, q, nq, Planes{keys, 0, width, 64}, false, Ahead{}) })
			run("sums", func() { k.PageSums(sums, p, nq, Planes{values, 0, width, 64}, Ahead{}) })
		}
	}
	m, out := new(Merge), make([]float32, 4*width)
	for _, l := range cpu.Levels() {
		b.Run("merge/4/"+l.String(), func(b *testing.B) {
			k := For(l)
			for b.Loop() {
				k.Merge(m, out, sums, nil, 4, width, width, width)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/Tokens, "ns/token")
		})
	}
}
