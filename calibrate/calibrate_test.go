package calibrate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/quant"
)

// logits of the last of some tokens, all read exactly, in the basis of a format.
func logits(t *testing.T, m *model.Model, format string, cal *quant.Calibration, tokens []terse.Token) []float32 {
	t.Helper()
	f, err := quant.ParseFormat(format, cal != nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.Config.Geometry(f)
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.New(m, g, cal, len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Forward(tokens, session.LastLogits)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clone(out)
}

// What is learned of a model leaves its answers alone, and every layer has its
// share of the gain, the last one too, whose queries few rows compute.
func TestFit(t *testing.T) {
	ops := cpu.Best(2)
	defer ops.Close()
	m, _ := modeltest.Tiny(t, 1, ops)
	r := rand.New(rand.NewPCG(1, 1))
	windows := make([][]terse.Token, 3)
	for i := range windows {
		for range 200 + 50*i {
			windows[i] = append(windows[i], terse.Token(r.IntN(m.Config.VocabSize)))
		}
	}
	done := 0.0
	cal, left, err := Fit(t.Context(), m, windows, func(d float64) { done = d })
	if err != nil {
		t.Fatal(err)
	}
	if done != 1 || len(left) != cal.Layers {
		t.Errorf("done %g, the gain of %d layers", done, len(left))
	}
	for layer, x := range left {
		if !(x > 0 && x < 0.999) {
			t.Errorf("layer %d: %g of the error is left", layer, x)
		}
	}
	want := logits(t, m, "f32", nil, windows[0])
	got := logits(t, m, "hq2,basis=balanced,sinks=256", cal, windows[0])
	var e, v float64
	for i, w := range want {
		d := float64(got[i] - w)
		e, v = e+d*d, v+float64(w)*float64(w)
	}
	if !(math.Sqrt(e/v) < 0.003) {
		t.Errorf("logits in the balanced basis are off by %.5f of their size", math.Sqrt(e/v))
	}
	if _, _, err := Fit(t.Context(), m, nil, func(float64) {}); err == nil {
		t.Error("calibrated on nothing")
	}
}

// kvquant's codebooks are those of what the model computes: a hundredth of K lies beyond
// its channels' ranges, levels ascend within them, and of 2-bit codes those that stand
// for values lie farther apart than those that take them.
func TestFitCodebooks(t *testing.T) {
	ops := cpu.Best(2)
	defer ops.Close()
	m, _ := modeltest.Tiny(t, 1, ops)
	r := rand.New(rand.NewPCG(2, 1))
	window := make([]terse.Token, 600)
	for i := range window {
		window[i] = terse.Token(r.IntN(m.Config.VocabSize))
	}
	cal, _, err := Fit(t.Context(), m, [][]terse.Token{window}, func(float64) {})
	if err != nil {
		t.Fatal(err)
	}
	q := cal.NUQ
	for layer := range cal.Layers {
		for half := range 2 {
			for bits := 2; bits <= 4; bits++ {
				book, levels := quant.NUQBook(q.Books, layer, half, bits), quant.NUQBook(q.Levels, layer, half, bits)
				for i, y := range book {
					if y < -1 || y > 1 || i > 0 && y <= book[i-1] {
						t.Errorf("layer %d, half %d, %d bits: levels %v", layer, half, bits, book)
					}
				}
				last := len(book) - 1
				if wider := levels[last]-levels[0] > book[last]-book[0]; wider != (bits == 2) {
					t.Errorf("layer %d, half %d, %d bits: codes of %v stand for %v", layer, half, bits, book, levels)
				}
			}
		}
	}
	f, err := quant.ParseFormat("kvquant", true)
	if err != nil {
		t.Fatal(err)
	}
	g, err := m.Config.Geometry(f)
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.New(m, g, cal, len(window))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Forward(window, session.NoLogits); err != nil {
		t.Fatal(err)
	}
	kept, all := 0, 0
	view := s.View()
	for page := 1; page < len(window)/64; page++ {
		for layer := range g.Layers {
			for head := range g.KVHeads {
				kept += len(view.Geometry.Outliers(nil, g.CodedHead(view.CodedLayer(page, layer), head), quant.HalfK, 0, 64))
				all += 64 * g.HeadDim
			}
		}
	}
	if share := float64(kept) / float64(all); share < 0.006 || share > 0.013 {
		t.Errorf("%.4f of K is kept exactly", share)
	}
}
