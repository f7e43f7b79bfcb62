//go:build !purego

package softmax

import "github.com/terse-llm/terse/internal/cpu"

// accelerate puts the level's kernels in. They take the address of a tile by its
// first score.
func accelerate(k *Kernels, l cpu.Level) {
	switch l {
	case cpu.AVX2:
		*k = Kernels{
			Level: l,
			scores: func(t *Tile, dots *int32, step, bias *float32, nq int, add bool) {
				scoresAVX2(&t.S[0][0], dots, step, bias, nq, add)
			},
			max:   func(t *Tile, nq int) { findMaxAVX2(&t.S[0][0], nq) },
			weigh: func(t *Tile, nq, n int) { weighAVX2(&t.S[0][0], nq, n) },
			weighBy: func(t *Tile, step, centre *float32, nq, n int) {
				if centre != nil {
					weighByCentredAVX2(&t.S[0][0], step, centre, nq, n)
					return
				}
				weighByAVX2(&t.S[0][0], step, nq, n)
			},
			quantise: func(t *Tile, nq, n int) { quantiseAVX2(&t.S[0][0], nq, n) },
		}
	case cpu.AVX512:
		*k = Kernels{
			Level: l,
			scores: func(t *Tile, dots *int32, step, bias *float32, nq int, add bool) {
				scoresAVX512(&t.S[0][0], dots, step, bias, nq, add)
			},
			max:   func(t *Tile, nq int) { findMaxAVX512(&t.S[0][0], nq) },
			weigh: func(t *Tile, nq, n int) { weighAVX512(&t.S[0][0], nq, n) },
			weighBy: func(t *Tile, step, centre *float32, nq, n int) {
				if centre != nil {
					weighByCentredAVX512(&t.S[0][0], step, centre, nq, n)
					return
				}
				weighByAVX512(&t.S[0][0], step, nq, n)
			},
			quantise: func(t *Tile, nq, n int) { quantiseAVX512(&t.S[0][0], nq, n) },
		}
	}
}
