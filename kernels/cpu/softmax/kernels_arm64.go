//go:build !purego

package softmax

import "github.com/terse-llm/terse/internal/cpu"

// accelerate puts the level's kernels in. They take the address of a tile by its
// first score.
func accelerate(k *Kernels, l cpu.Level) {
	switch l {
	case cpu.NEON, cpu.DotProd:
		*k = Kernels{
			Level: l,
			scores: func(t *Tile, dots *int32, step, bias *float32, nq int, add bool) {
				scoresNEON(&t.S[0][0], dots, step, bias, nq, add)
			},
			max:   func(t *Tile, nq int) { findMaxNEON(&t.S[0][0], nq) },
			weigh: func(t *Tile, nq, n int) { weighNEON(&t.S[0][0], nq, n) },
			weighBy: func(t *Tile, step, centre *float32, nq, n int) {
				if centre != nil {
					weighByCentredNEON(&t.S[0][0], step, centre, nq, n)
					return
				}
				weighByNEON(&t.S[0][0], step, nq, n)
			},
			quantise: func(t *Tile, nq, n int) { quantiseNEON(&t.S[0][0], nq, n) },
		}
	}
}
