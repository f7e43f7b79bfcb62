package quant

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// What weighs most gets in with its neighbours, as many as there may be, and no
// more than a page may have.
func TestImportant(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 3))
		weights := make([]float32, 64*(1+r.IntN(6)))
		for i := range weights {
			if r.IntN(4) > 0 { // many ties
				weights[i] = float32(r.IntN(20))
			}
		}
		percent, most := 1+r.IntN(50), 8*(1+r.IntN(7))
		sets := important(weights, 64, percent, most)
		count, least, best := 0, float32(1e9), float32(-1)
		capped := false
		for i := range weights {
			w := slices.Max(weights[max(0, i-3):min(len(weights), i+4)])
			if sets[i/64]>>(i%64)&1 == 1 {
				count++
				least = min(least, w)
			} else if bits.OnesCount64(sets[i/64]) < most {
				best = max(best, w)
			}
		}
		for _, s := range sets {
			if n := bits.OnesCount64(s); n > most {
				t.Fatalf("seed %d: %d tokens of a page, at most %d", seed, n, most)
			} else if n == most {
				capped = true
			}
		}
		if want := (len(weights)*percent + 99) / 100; count > want || count < want && !capped {
			t.Fatalf("seed %d: %d tokens of %d, want %d %%", seed, count, len(weights), percent)
		}
		if best > least {
			t.Fatalf("seed %d: %g was left out, %g got in", seed, best, least)
		}
	}
	weights := make([]float32, 128)
	weights[70] = 1
	if sets := important(weights, 64, 5, 16); !slices.Equal(sets, []uint64{0, 0x7f << 3}) {
		t.Errorf("one heavy token gives the sets %x", sets)
	}
}
