package attention

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/quant"
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
		sets := Important(weights, 64, percent, most)
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
	if sets := Important(weights, 64, 5, 16); !slices.Equal(sets, []uint64{0, 0x7f << 3}) {
		t.Errorf("one heavy token gives the sets %x", sets)
	}
}

// What is watched are the last queries of the prompt, in whatever segments.
func TestWatched(t *testing.T) {
	f := func(pos, rows, prompt, lo, hi int) {
		t.Helper()
		s := Segment{View: view(t, "hq2,important=10", prompt), Pos: pos, Rows: rows}
		l, h := s.watched()
		if l < h != (lo < hi) || l < h && (l != lo || h != hi) {
			t.Errorf("rows [%d,%d) of a segment of %d at %d", l, h, rows, pos)
		}
		if Selects([]Segment{s}) != (lo < hi) {
			t.Errorf("a segment of %d at %d: Selects is wrong", rows, pos)
		}
	}
	f(0, 512, 4096, 0, 0)
	f(0, 300, 300, 236, 300)
	f(0, 30, 30, 0, 30)
	f(512, 64, 600, 24, 64)
	f(576, 24, 600, 0, 24)
	f(600, 1, 600, 0, 0)
	f(592, 16, 600, 0, 8) // generated tokens are computed again with the prompt's last ones
	if s := (Segment{View: view(t, "hq2", 300), Rows: 300}); Selects([]Segment{s}) {
		t.Error("hq2 selects")
	}
}

func view(t *testing.T, format string, prompt int) *quant.View {
	t.Helper()
	f, err := quant.ParseFormat(format, true)
	if err != nil {
		t.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 1, 1, 64)
	if err != nil {
		t.Fatal(err)
	}
	return &quant.View{Geometry: g, PromptLen: prompt}
}
