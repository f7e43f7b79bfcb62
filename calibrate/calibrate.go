package calibrate

import (
	"context"
	"fmt"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Fit runs the model over windows of tokens, exactly, and returns the means of
// what would have been cached. progress is told the share done, 0 to 1.
func Fit(ctx context.Context, m *model.Model, windows [][]terse.Token, progress func(done float64)) (*quant.Calibration, error) {
	exact, err := quant.ParseFormat("f16", false)
	if err != nil {
		return nil, err
	}
	g, err := m.Config.Geometry(exact)
	if err != nil {
		return nil, err
	}
	sums := newSums(g)
	if !slices.ContainsFunc(windows, func(w []terse.Token) bool { return len(w) > 0 }) {
		return nil, fmt.Errorf("cannot calibrate: there is no text")
	}
	for i, w := range windows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := session.New(m, g, nil, len(w))
		if err != nil {
			return nil, err
		}
		if _, err := s.Forward(w, session.NoLogits); err != nil {
			return nil, err
		}
		sums.add(s.View(), len(w))
		progress(float64(i+1) / float64(len(windows)))
	}
	return sums.means(), nil
}

// sums accumulates K and V over tokens, [layer][head][channel], in float64: a
// mean over 10⁵ float32 values in float32 would lose digits that matter.
type sums struct {
	g      *quant.Geometry
	k, v   []float64
	tokens int
}

func newSums(g *quant.Geometry) *sums {
	n := g.Layers * g.KVHeads * g.HeadDim
	return &sums{g: g, k: make([]float64, n), v: make([]float64, n)}
}

// add reads the first n tokens of an exact view.
func (s *sums) add(view *quant.View, n int) {
	s.tokens += n
	g, t := s.g, s.g.Format.PageTokens
	for layer := range g.Layers {
		for first := 0; first < n; first += t {
			page := view.ExactLayer(first/t, layer)
			for head := range g.KVHeads {
				at := (layer*g.KVHeads + head) * g.HeadDim
				addRows(s.k[at:at+g.HeadDim], g.ExactK(page, head), min(t, n-first))
				addRows(s.v[at:at+g.HeadDim], g.ExactV(page, head), min(t, n-first))
			}
		}
	}
}

func addRows(sum []float64, rows []byte, n int) {
	for i := range n {
		for c := range sum {
			sum[c] += float64(tensor.GetF16(rows, i*len(sum)+c))
		}
	}
}

func (s *sums) means() *quant.Calibration {
	c := &quant.Calibration{Layers: s.g.Layers, KVHeads: s.g.KVHeads, HeadDim: s.g.HeadDim,
		KMean: make([]float32, len(s.k)), VMean: make([]float32, len(s.v))}
	for i := range s.k {
		c.KMean[i] = float32(s.k[i] / float64(s.tokens))
		c.VMean[i] = float32(s.v[i] / float64(s.tokens))
	}
	return c
}
