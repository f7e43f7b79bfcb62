package calibrate

import (
	"math"
	"slices"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

const (
	// nuqSamples is the most values of K, and of V, that kvquant's codebooks are
	// learned of; a quarter of a GiB of float16 for both.
	nuqSamples = 1 << 26
	// nuqTail is the share of a channel's values beyond either end of its range.
	nuqTail = 0.005
	nuqBins = 512 // of a histogram of [-1, 1], of which levels are made
)

// nuqFit collects what kvquant's codebooks are learned of: K before RoPE, V, and what
// attention gives to their tokens. The first token of a text is left out, as its exact
// form is read.
type nuqFit struct {
	g           *quant.Geometry
	ops         kernels.Ops
	inverse     []float32
	interleaved bool
	stride      int // every so many tokens are kept
	seen        int
	heads       []nuqHead   // [layer][KV head]
	weights     [][]float32 // of the window at hand, likewise, [token]
}

// nuqHead is the samples of one layer and KV head.
type nuqHead struct {
	k, v   []uint16  // float16, [token][channel]
	weight []float64 // [token]
}

func newNUQFit(m *model.Model, g *quant.Geometry, tokens int) *nuqFit {
	f := &nuqFit{g: g, ops: m.Ops(), heads: make([]nuqHead, g.Layers*g.KVHeads), weights: make([][]float32, g.Layers*g.KVHeads)}
	f.inverse, f.interleaved = m.Rotations()
	f.stride = max(1, tokens*len(f.heads)*g.HeadDim/nuqSamples)
	return f
}

// begin takes in that a window of n tokens comes.
func (f *nuqFit) begin(n int) {
	for i := range f.weights {
		f.weights[i] = make([]float32, n)
	}
}

// addWeights adds what the queries of some jobs of one layer give to the tokens.
func (f *nuqFit) addWeights(jobs []kernels.AttnJob) {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		jobs[i].Weights = make([]float32, slices.Max(jobs[i].Limit))
	}
	f.ops.Weigh(jobs)
	for i := range jobs {
		sum := f.weights[jobs[i].Layer*f.g.KVHeads+jobs[i].Head]
		for t, w := range jobs[i].Weights {
			sum[t] += w
		}
	}
}

// addCache keeps samples of the n tokens of an exact view.
func (f *nuqFit) addCache(view *quant.View, n int) {
	var kept []int
	for t := 1; t < n; t++ {
		if f.seen++; f.seen%f.stride == 0 {
			kept = append(kept, t)
		}
	}
	g, d, pairs := f.g, f.g.HeadDim, len(f.inverse)
	cos, sin := make([]float32, len(kept)*pairs), make([]float32, len(kept)*pairs)
	for i, t := range kept {
		for j, inv := range f.inverse {
			s, c := math.Sincos(float64(t) * float64(inv))
			cos[i*pairs+j], sin[i*pairs+j] = float32(c), float32(s)
		}
	}
	f.ops.Parallel(len(f.heads), kernels.TaskFunc(func(i int) {
		h, row := &f.heads[i], make([]float32, d)
		for j, t := range kept {
			page, at := view.ExactLayer(t/g.Format.PageTokens, i/g.KVHeads), t%g.Format.PageTokens*d
			k, v := g.ExactK(page, i%g.KVHeads), g.ExactV(page, i%g.KVHeads)
			for c := range row {
				row[c] = tensor.GetF16(k, at+c)
			}
			quant.TurnPairs(row, cos[j*pairs:(j+1)*pairs], sin[j*pairs:(j+1)*pairs], f.interleaved, true)
			for c, x := range row {
				h.k, h.v = append(h.k, tensor.F32ToF16(x)), append(h.v, tensor.F32ToF16(tensor.GetF16(v, at+c)))
			}
			h.weight = append(h.weight, float64(f.weights[i][t]))
		}
	}))
}

// fit makes the codebooks. qq are the sums of products of the queries of each layer and
// KV head, [channel][channel].
func (f *nuqFit) fit(qq []float64) *quant.NUQ {
	g, d := f.g, f.g.HeadDim
	q := quant.NewNUQ(g.Layers, g.KVHeads, d, len(f.inverse))
	copy(q.Inverse, f.inverse)
	q.Interleaved = f.interleaved
	f.ops.Parallel(g.Layers, kernels.TaskFunc(func(layer int) {
		var k, v histogram
		for i := layer * g.KVHeads; i < (layer+1)*g.KVHeads; i++ {
			f.heads[i].ranges(q.Low[i*d:(i+1)*d], q.High[i*d:(i+1)*d])
			f.heads[i].addKeys(&k, q.Low[i*d:(i+1)*d], q.High[i*d:(i+1)*d], f.sensitivity(qq[i*d*d:(i+1)*d*d]))
			f.heads[i].addValues(&v, d)
		}
		for half, h := range []*histogram{&k, &v} {
			for bits := 2; bits <= 4; bits++ {
				book, levels := quant.NUQBook(q.Books, layer, half, bits), quant.NUQBook(q.Levels, layer, half, bits)
				h.book(book)
				copy(levels, book)
				if bits == 2 {
					h.normalise(levels, book)
				}
			}
		}
	}))
	return q
}

// sensitivity is the second moments of the queries by the channels of K before RoPE:
// what its pairs have of them on the average over the angles between two tokens.
func (f *nuqFit) sensitivity(qq []float64) []float64 {
	d := f.g.HeadDim
	s := make([]float64, d)
	for c := range s {
		s[c] = qq[c*d+c]
	}
	for i := range f.inverse {
		a, b := i, i+len(f.inverse)
		if f.interleaved {
			a, b = 2*i, 2*i+1
		}
		s[a] = (s[a] + s[b]) / 2
		s[b] = s[a]
	}
	return s
}

// ranges sets the ends of every channel of K.
func (h *nuqHead) ranges(low, high []float32) {
	n, d := len(h.weight), len(low)
	column := make([]float32, n)
	for c := range low {
		for t := range column {
			column[t] = tensor.F16ToF32(h.k[t*d+c])
		}
		slices.Sort(column)
		if n > 0 {
			tail := int(nuqTail * float64(n))
			low[c], high[c] = column[tail], column[n-1-tail]
		}
	}
}

// addKeys adds the values of K within their channels' ranges.
func (h *nuqHead) addKeys(to *histogram, low, high []float32, sensitivity []float64) {
	d := len(low)
	for t, w := range h.weight {
		for c, lo := range low {
			x, scale := tensor.F16ToF32(h.k[t*d+c]), float64(high[c]-lo)/2
			if x >= lo && x <= high[c] && scale > 0 {
				to.add((float64(x)-float64(lo+high[c])/2)/scale, w*sensitivity[c]*scale*scale)
			}
		}
	}
}

// addValues adds the values of V without every token's outliers.
func (h *nuqHead) addValues(to *histogram, d int) {
	row, far := make([]float32, d), make([]int, 0, d)
	for t, w := range h.weight {
		for c := range row {
			row[c] = tensor.F16ToF32(h.v[t*d+c])
		}
		lo, hi, out := quant.RangeWithout(far[:0], row, quant.NUQOutliers(d))
		scale := float64(hi-lo) / 2
		for c, x := range row {
			if scale > 0 && !slices.Contains(out, c) {
				to.add((float64(x)-float64(lo+hi)/2)/scale, w*scale*scale)
			}
		}
	}
}

// histogram is of values in [-1, 1].
type histogram struct {
	count         [nuqBins]float64
	weight        [nuqBins]float64
	sum, weighted [nuqBins]float64 // of the values, plain and by weight
}

func (h *histogram) add(y, weight float64) {
	i := min(max(int((y+1)/2*nuqBins), 0), nuqBins-1)
	h.count[i]++
	h.sum[i] += y
	h.weight[i] += weight
	h.weighted[i] += weight * y
}

// book sets levels, ascending, to the means of that many runs of bins that have the
// least squared error by weight: k-means in one dimension, solved exactly (dynamic
// programming over where runs end).
func (h *histogram) book(levels []float32) {
	const n = nuqBins
	var w, s, e [n + 1]float64 // sums of the bins before: weights, values, their squares
	weight, weighted := &h.weight, &h.weighted
	if total(weight) == 0 { // nobody looked: as if all looked alike
		weight, weighted = &h.count, &h.sum
	}
	for i := range n {
		y := middle(i)
		if weight[i] > 0 {
			y = weighted[i] / weight[i]
		}
		w[i+1], s[i+1], e[i+1] = w[i]+weight[i], s[i]+weighted[i], e[i]+weight[i]*y*y
	}
	cost := func(i, j int) float64 { // of bins [i, j) as one run
		if w[j] == w[i] {
			return 0
		}
		return max(0, e[j]-e[i]-(s[j]-s[i])*(s[j]-s[i])/(w[j]-w[i]))
	}
	best := make([]float64, n+1)
	from := make([][]int, len(levels)) // [runs - 1][end]: where the last run begins
	for j := range best {
		best[j] = cost(0, j)
	}
	from[0] = make([]int, n+1)
	for k := 1; k < len(levels); k++ {
		from[k] = make([]int, n+1)
		for j := n; j >= 0; j-- { // falling: best[i < j] is still of k runs
			least, at := best[j], j
			for i := range j {
				if c := best[i] + cost(i, j); c < least {
					least, at = c, i
				}
			}
			best[j], from[k][j] = least, at
		}
	}
	for k, end := len(levels)-1, n; k >= 0; k-- {
		start := from[k][end]
		if k == 0 {
			start = 0
		}
		y := middle(min(start, n-1))
		if w[end] > w[start] {
			y = (s[end] - s[start]) / (w[end] - w[start])
		}
		levels[k] = float32(y)
		end = start
	}
	slices.Sort(levels) // empty runs may stand anywhere
}

func middle(bin int) float64 { return (2*float64(bin)+1)/nuqBins - 1 }

func total(x *[nuqBins]float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum
}

// normalise is KVQuant's Q-Norm: levels are what codes of book stand for if coded
// values are to have the values' mean and deviation.
func (h *histogram) normalise(levels, book []float32) {
	var n, s, e, sq, eq float64
	for i, count := range h.count {
		if count == 0 {
			continue
		}
		y := h.sum[i] / count
		q, far := 0.0, math.Inf(1)
		for _, b := range book {
			if d := math.Abs(float64(b) - y); d < far {
				q, far = float64(b), d
			}
		}
		n, s, e, sq, eq = n+count, s+count*y, e+count*y*y, sq+count*q, eq+count*q*q
	}
	if n == 0 {
		return
	}
	mean, meanQ := s/n, sq/n
	spread, spreadQ := e/n-mean*mean, eq/n-meanQ*meanQ
	if !(spread > 0 && spreadQ > 0) {
		return
	}
	for i, b := range book {
		levels[i] = float32(min(max((float64(b)-meanQ)*math.Sqrt(spread/spreadQ)+mean, -8), 8))
	}
}
