package calibrate

import (
	"context"
	"fmt"
	"slices"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// Fit runs the model over windows of tokens, exactly, and returns what its cache
// held: the means, kvquant's codebooks, and the balanced bases of K with, per layer, the
// share of a code's error in the scores that is left in them ([basis]). progress is told
// the share done, 0 to 1.
func Fit(ctx context.Context, m *model.Model, windows [][]terse.Token, progress func(done float64)) (*quant.Calibration, []float64, error) {
	exact, err := quant.ParseFormat("f16", false)
	if err != nil {
		return nil, nil, err
	}
	g, err := m.Config.Geometry(exact)
	if err != nil {
		return nil, nil, err
	}
	sums := newSums(g, m.Ops())
	for i, format := range []string{"cachegen", "cachegen,delta=10"} {
		if sums.levels[i], err = quant.NewLevelCounts(format, g.Layers, g.KVHeads, g.HeadDim); err != nil {
			return nil, nil, err
		}
	}
	if !slices.ContainsFunc(windows, func(w []terse.Token) bool { return len(w) > 0 }) {
		return nil, nil, fmt.Errorf("cannot calibrate: there is no text")
	}
	tokens := 0
	for _, w := range windows {
		tokens += len(w)
	}
	nuq := newNUQFit(m, g, tokens)
	for i, w := range windows {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		s, err := session.New(m, g, nil, len(w))
		if err != nil {
			return nil, nil, err
		}
		nuq.begin(len(w))
		s.Watch(func(jobs []kernels.AttnJob) {
			sums.addQueries(jobs)
			nuq.addWeights(jobs)
		})
		if _, err := s.Forward(w, session.SomeLogits); err != nil { // some: for the last layer's queries
			return nil, nil, err
		}
		sums.addCache(s.View(), len(w))
		nuq.addCache(s.View(), len(w))
		progress(float64(i+1) / float64(len(windows)))
	}
	fit := nuq.fit(sums.qq) // before the bases use them up
	c, left := sums.calibration()
	c.NUQ = fit
	return c, left, nil
}

// sums accumulates what a model computes, in float64: a mean over 10⁵ float32
// values in float32 would lose digits that matter.
type sums struct {
	g      *quant.Geometry
	ops    kernels.Ops
	k, v   []float64 // [layer][head][channel]
	kk, qq []float64 // products, [layer][head][channel][channel at least that]
	tokens int
	tasks  []headSums
	levels [2]*quant.LevelCounts // of cachegen, without deltas and with
}

func newSums(g *quant.Geometry, ops kernels.Ops) *sums {
	n := g.Layers * g.KVHeads * g.HeadDim
	return &sums{g: g, ops: ops, k: make([]float64, n), v: make([]float64, n),
		kk: make([]float64, n*g.HeadDim), qq: make([]float64, n*g.HeadDim), tasks: make([]headSums, g.Layers*g.KVHeads)}
}

// headSums is the memory of one layer and KV head.
type headSums struct{ row []float64 }

// addQueries adds the queries of one layer, those of a KV head's group together.
func (s *sums) addQueries(jobs []kernels.AttnJob) {
	d := s.g.HeadDim
	s.ops.Parallel(s.g.KVHeads, kernels.TaskFunc(func(head int) {
		for _, j := range jobs {
			if j.Head != head {
				continue
			}
			at := j.Layer*s.g.KVHeads + head
			t := &s.tasks[at]
			for q := range slices.Chunk(j.Q, d) {
				t.row = t.row[:0]
				for _, x := range q {
					t.row = append(t.row, float64(x))
				}
				addProducts(s.qq[at*d*d:(at+1)*d*d], t.row)
			}
		}
	}))
}

// addCache adds the first n tokens of an exact view.
func (s *sums) addCache(view *quant.View, n int) {
	s.tokens += n
	g, d, t := s.g, s.g.HeadDim, s.g.Format.PageTokens
	s.ops.Parallel(len(s.tasks), kernels.TaskFunc(func(i int) {
		k, v, kk := s.k[i*d:(i+1)*d], s.v[i*d:(i+1)*d], s.kk[i*d*d:(i+1)*d*d]
		for first := 0; first < n; first += t {
			page, rows := view.ExactLayer(first/t, i/g.KVHeads), min(t, n-first)
			s.tasks[i].addRows(g.ExactK(page, i%g.KVHeads), rows, k, kk)
			s.tasks[i].addRows(g.ExactV(page, i%g.KVHeads), rows, v, nil)
		}
	}))
	s.ops.Parallel(g.Layers, kernels.TaskFunc(func(layer int) {
		for first := 0; first < n; first += t {
			for _, l := range s.levels {
				l.Add(layer, view.ExactLayer(first/t, layer), min(t, n-first))
			}
		}
	}))
}

// addRows adds n rows to their sum and, unless nil, to their products' sums.
func (t *headSums) addRows(rows []byte, n int, sum, products []float64) {
	for i := range n {
		t.row = t.row[:0]
		for c := range sum {
			x := float64(tensor.GetF16(rows, i*len(sum)+c))
			sum[c] += x
			t.row = append(t.row, x)
		}
		if products != nil {
			addProducts(products, t.row)
		}
	}
}

// addProducts adds x·x', of which the upper triangle suffices, to m.
func addProducts(m, x []float64) {
	for i, a := range x {
		row := m[i*len(x)+i : (i+1)*len(x)]
		for j, b := range x[i:] {
			row[j] += a * b
		}
	}
}

// calibration makes means and bases of the sums.
func (s *sums) calibration() (*quant.Calibration, []float64) {
	g, d := s.g, s.g.HeadDim
	c := &quant.Calibration{Layers: g.Layers, KVHeads: g.KVHeads, HeadDim: d,
		KMean: make([]float32, len(s.k)), VMean: make([]float32, len(s.v)), KBasis: make([]float32, len(s.kk)), Levels: s.levels[0].Frequencies(), Deltas: s.levels[1].Frequencies()}
	n := float64(s.tokens)
	for i := range s.k {
		c.KMean[i] = float32(s.k[i] / n)
		c.VMean[i] = float32(s.v[i] / n)
	}
	left := make([]float64, len(s.tasks))
	s.ops.Parallel(len(s.tasks), kernels.TaskFunc(func(i int) {
		kk, qq, sum := s.kk[i*d*d:(i+1)*d*d], s.qq[i*d*d:(i+1)*d*d], s.k[i*d:(i+1)*d]
		for a := range d {
			for b := a; b < d; b++ {
				kk[a*d+b] = kk[a*d+b]/n - sum[a]/n*(sum[b]/n)
				kk[b*d+a], qq[b*d+a] = kk[a*d+b], qq[a*d+b]
			}
		}
		left[i] = basis(c.KBasis[i*d*d:(i+1)*d*d], qq, kk, d)
	}))
	layers := make([]float64, g.Layers)
	for i, x := range left {
		layers[i/g.KVHeads] += x / float64(g.KVHeads)
	}
	return c, layers
}
