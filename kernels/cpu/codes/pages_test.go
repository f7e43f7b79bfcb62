package codes

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/guard"
)

// Several pages at once are the pages one by one, in memory that ends where theirs
// does, whatever is fetched meanwhile.
func TestPages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 6))
	for _, width := range []int{32, 64, 96, 128, 160, 256} {
		for _, rows := range []int{8, 24, 64} {
			for n := 1; n <= 4; n++ {
				const off = 48
				p := Planes{Off: off, Width: width, Rows: rows}
				for range n {
					b := guard.Bytes(t, off+rows*width/4)
					for i := range b {
						b[i] = byte(r.Uint32())
					}
					p.Pages = append(p.Pages, b)
				}
				for _, level := range cpu.Levels() {
					for _, nq := range []int{1, 2, 4} {
						checkPages(t, For(level), r, p, nq)
					}
				}
			}
		}
	}
}

func checkPages(t *testing.T, k *Kernels, r *rand.Rand, p Planes, nq int) {
	t.Helper()
	n := len(p.Pages) * p.Rows
	aheads := []Ahead{{}, {p.Pages, 0, p.Off}, {p.Pages, p.Off, 1 << 20}, {p.Pages[1:], 0, 64}}
	q := guard.Bytes(t, nq*p.Width)
	weights := guard.Bytes(t, (nq-1)*Tokens+n)
	for i := range q {
		q[i] = byte(r.IntN(255) + 129)
	}
	for i := range weights {
		weights[i] = byte(r.Uint32())
	}
	ints := make([]int8, len(q))
	for i, b := range q {
		ints[i] = int8(b)
	}
	dots, sums := make([]int32, (nq-1)*Tokens+n), make([]int32, nq*p.Width)
	wantDots, wantSums := slices.Clone(dots), slices.Clone(sums)
	for i, a := range aheads {
		k.PageProducts(dots, ints, nq, p, i > 0, a)
		for j := range sums {
			sums[j], wantSums[j] = int32(r.Uint32()), 0
		}
		k.PageSums(sums, weights, nq, p, a)
		for j, page := range p.Pages {
			g := For(cpu.Generic)
			g.Products(wantDots[j*p.Rows:], ints, page[p.Off:], nq, p.Width, p.Rows, i > 0)
			g.WeightedSums(wantSums, weights[j*p.Rows:], page[p.Off:], nq, p.Width, p.Rows/4)
		}
		if !slices.Equal(dots, wantDots) || !slices.Equal(sums, wantSums) {
			t.Fatalf("%v: %d pages of %d rows, width %d, %d vectors differ from one by one", k.Level, len(p.Pages), p.Rows, p.Width, nq)
		}
	}
}
