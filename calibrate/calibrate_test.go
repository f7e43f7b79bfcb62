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

// A budget is spread over the layers: within it, better than nothing, and what is
// written can be read and used. More budget does less harm.
func TestBudget(t *testing.T) {
	ops := cpu.Best(2)
	defer ops.Close()
	m, _ := modeltest.Tiny(t, 1, ops)
	r := rand.New(rand.NewPCG(2, 1))
	windows := make([][]terse.Token, 2)
	for i := range windows {
		for range 700 + 50*i {
			windows[i] = append(windows[i], terse.Token(r.IntN(m.Config.VocabSize)))
		}
	}
	cal, _, err := Fit(t.Context(), m, windows, func(float64) {})
	if err != nil {
		t.Fatal(err)
	}
	none := bitsOf("hq2,basis=balanced", cal.HeadDim)
	least := math.Inf(1)
	for _, over := range []float64{0, 0.3, 2} {
		done := 0.0
		parts, err := Budget(t.Context(), m, cal, windows, none+over, func(d float64) { done = d })
		if err != nil {
			t.Fatal(err)
		}
		if done != 1 || len(cal.KPlan) != cal.Layers {
			t.Errorf("done %g, a plan of %d layers", done, len(cal.KPlan))
		}
		f, err := quant.ParseFormat("hq2b", true)
		if err != nil {
			t.Fatal(err)
		}
		g, err := m.Config.CalibratedGeometry(f, cal)
		if err != nil {
			t.Fatal(err)
		}
		bits := float64(8*g.CodedPage()) / float64(2*64*cal.HeadDim*cal.KVHeads*cal.Layers)
		i := slices.IndexFunc(parts, func(p Part) bool { return p.Format == "hq2b" })
		if p := parts[i]; math.Abs(p.Bits-bits) > 1e-9 || bits > none+over+1e-9 || p.Divergence > least || over == 0 && bits != none {
			t.Errorf("%g bits more: %+v takes %g, after a divergence of %g", over, p, bits, least)
		}
		least = parts[i].Divergence
		s, err := session.New(m, g, cal, 512)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Forward(windows[0][:512], session.LastLogits); err != nil {
			t.Fatal(err)
		}
	}
	if all := slices.IndexFunc(cal.KPlan, func(n uint16) bool { return int(n) != cal.HeadDim }); all >= 0 {
		t.Errorf("2 bits more leave layer %d %d channels", all, cal.KPlan[all])
	}
	if _, err := Budget(t.Context(), m, cal, windows, none-0.1, func(float64) {}); err == nil {
		t.Error("a budget below what is there is kept")
	}
	if _, err := Budget(t.Context(), m, cal, [][]terse.Token{windows[0][:100]}, none, func(float64) {}); err == nil {
		t.Error("measured on too little text")
	}
}

// With no errors in the codes attention is the same; the divergence of two tokens
// is the formula's.
func TestAskDivergence(t *testing.T) {
	f, err := quant.ParseFormat("hq2,sinks=0,recent=0", true)
	if err != nil {
		t.Fatal(err)
	}
	p := &probe{scale: 1}
	q, keys := []float32{1, 0, 0, 0}, make([]float32, 64*4)
	errors := make([]float32, len(keys))
	if x := p.askDivergence(f, 64, q, nil, keys, errors); math.Abs(x) > 1e-12 {
		t.Errorf("without errors: %g", x)
	}
	for tok := range 32 { // half of equal weights e times as large
		errors[4*tok] = 1
	}
	want := math.Log((math.E+1)/2) - 0.5
	if x := p.askDivergence(f, 64, q, nil, keys, errors); math.Abs(x-want) > 1e-9 {
		t.Errorf("divergence %g, want %g", x, want)
	}
	if x := p.askDivergence(f, 64, q, [][]float32{{1, 0, 0, 0}}, keys, errors); math.Abs(x) > 1e-12 {
		t.Errorf("with the error's direction taken away: %g", x)
	}
}
