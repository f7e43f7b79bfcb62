package calibrate

import (
	"context"
	"math"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/session"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/quant/dequant"
	"github.com/terse-llm/terse/tensor"
)

// What is measured of a way to code the keys of a layer and KV head is what it does
// to attention: KL(p ‖ p̂) in nats, p being the weights that a query gives to all
// tokens before it and p̂ those with every key outside the exact windows as its code.
// To second order that is half the variance, under p, of the errors of the scores.

// queryEvery is how many positions lie between the queries that are measured with.
const queryEvery = 128

// probe is a text's exact keys and some of its queries.
type probe struct {
	tokens int
	k      [][]float32 // [layer][token × KV head × channel], after RoPE
	asks   [][]ask     // [layer × KV head]
	scale  float32
}

// ask is the queries of a KV head's group at one position.
type ask struct {
	seen int       // tokens, its own among them
	q    []float32 // [group][channel], after RoPE
}

// newProbe runs a text exactly.
func newProbe(m *model.Model, g *quant.Geometry, text []terse.Token) (*probe, error) {
	s, err := session.New(m, g, nil, len(text))
	if err != nil {
		return nil, err
	}
	p := &probe{tokens: len(text), asks: make([][]ask, g.Layers*g.KVHeads), scale: m.Config.AttentionScale()}
	s.Watch(func(jobs []kernels.AttnJob) {
		for _, j := range jobs {
			p.take(g, j)
		}
	})
	if _, err := s.Forward(text, session.SomeLogits); err != nil {
		return nil, err
	}
	d, pages := g.HeadDim, g.Format.PageTokens
	for layer := range g.Layers {
		k := make([]float32, len(text)*g.KVHeads*d)
		for i := range k {
			tok, head, c := i/(g.KVHeads*d), i/d%g.KVHeads, i%d
			k[i] = tensor.GetF16(g.ExactK(s.View().ExactLayer(tok/pages, layer), head), tok%pages*d+c)
		}
		p.k = append(p.k, k)
	}
	return p, nil
}

// take keeps some of a job's queries: those that are first to be far enough from
// the last one kept.
func (p *probe) take(g *quant.Geometry, j kernels.AttnJob) {
	asks, width := &p.asks[j.Layer*g.KVHeads+j.Head], j.Group*g.HeadDim
	next := 2 * queryEvery
	if n := len(*asks); n > 0 {
		next = (*asks)[n-1].seen + queryEvery
	}
	for i, seen := range j.Limit {
		if seen >= next {
			*asks = append(*asks, ask{seen, append([]float32(nil), j.Q[i*width:(i+1)*width]...)})
			next = seen + queryEvery
		}
	}
}

// way is a way to code K of one layer.
type way struct {
	format string
	gain   float32 // of the leading channels, where they share their scale
	rank   int     // of the error, in the basis of the queries' principal components, that is not there (HeadQ)
}

// divergence is the sum over queries of KL(p ‖ p̂) of one layer and head, and their
// number.
func (p *probe) divergence(ops kernels.Ops, cal *quant.Calibration, layer, head int, w way) (sum float64, n int, err error) {
	one, kg := calibrationOf(cal, layer, head), cal.KVHeads
	one.KGain = make([]float32, (cal.HeadDim-1)/16)
	for i := range one.KGain {
		one.KGain[i] = w.gain
	}
	f, err := quant.ParseFormat(w.format, true)
	if err != nil {
		return 0, 0, err
	}
	g, err := quant.NewGeometry(f, 1, 1, cal.HeadDim)
	if err != nil {
		return 0, 0, err
	}
	tf, err := quant.NewTransform(g, one)
	if err != nil {
		return 0, 0, err
	}
	d := cal.HeadDim
	keys := make([]float32, 0, p.tokens*d)
	for t := range p.tokens {
		at := (t*kg + head) * d
		keys = append(keys, p.k[layer][at:at+d]...)
	}
	tf.Keys(quant.Plain{}, 0, keys)
	errors := codingErrors(ops, g, keys)
	asks := p.asks[layer*kg+head]
	queries := make([][]float32, len(asks))
	for i, a := range asks {
		queries[i] = append([]float32(nil), a.q...)
		tf.Queries(quant.Plain{}, 0, queries[i], len(a.q)/d)
	}
	without := principal(queries, d, w.rank)
	for i, a := range asks {
		for at := 0; at < len(queries[i]); at += d {
			sum += p.askDivergence(f, a.seen, queries[i][at:at+d], without, keys, errors)
			n++
		}
	}
	return sum, n, nil
}

// calibrationOf is the part of one layer and KV head.
func calibrationOf(cal *quant.Calibration, layer, head int) *quant.Calibration {
	d, at := cal.HeadDim, layer*cal.KVHeads+head
	return &quant.Calibration{Layers: 1, KVHeads: 1, HeadDim: d, KMean: cal.KMean[at*d : (at+1)*d], VMean: cal.VMean[at*d : (at+1)*d],
		KBasis: cal.KBasis[at*d*d : (at+1)*d*d]}
}

// codingErrors codes rows of K, in the basis, and returns what the codes of whole
// pages stand for less the rows.
func codingErrors(ops kernels.Ops, g *quant.Geometry, keys []float32) []float32 {
	d, tokens := g.HeadDim, g.Format.PageTokens
	exact, coded := make([]byte, g.ExactBytes()), make([]byte, g.CodedBytes())
	errors := make([]float32, len(keys)/(tokens*d)*tokens*d)
	for at := 0; at < len(errors); at += tokens * d {
		rows := keys[at : at+tokens*d]
		ops.Store(g, exact, 0, rows, rows)
		ops.Encode(g, quant.EncodeArgs{Exact: exact, Coded: coded, Hi: tokens})
		for i, x := range dequant.Half(g, coded, 0, quant.HalfK) {
			errors[at+i] = float32(x) - rows[i]
		}
	}
	return errors
}

// principal is the first rank principal components of the queries.
func principal(queries [][]float32, d, rank int) [][]float32 {
	if rank == 0 {
		return nil
	}
	moments := make([]float64, d*d)
	for _, group := range queries {
		for at := 0; at < len(group); at += d {
			for i, a := range group[at : at+d] {
				for j, b := range group[at : at+d] {
					moments[i*d+j] += float64(a) * float64(b)
				}
			}
		}
	}
	values, vectors := eigen(moments, d)
	out := make([][]float32, rank)
	for r, k := range falling(values)[:rank] {
		for i := range d {
			out[r] = append(out[r], float32(vectors[i*d+k]))
		}
	}
	return out
}

// askDivergence is KL(p ‖ p̂) of one query that sees some tokens.
func (p *probe) askDivergence(f quant.Format, seen int, q []float32, without [][]float32, keys, errors []float32) float64 {
	d := len(q)
	from, _ := f.ExactFrom(seen)
	of := append([]float32(nil), q...) // what the errors are seen by
	for _, u := range without {
		c := dot(u, q)
		for i := range of {
			of[i] -= float32(c) * u[i]
		}
	}
	scores, wrong := make([]float64, seen), make([]float64, seen)
	top := math.Inf(-1)
	for t := range seen {
		scores[t] = float64(p.scale) * dot(q, keys[t*d:(t+1)*d])
		top = max(top, scores[t])
		if t >= f.Sinks && t < from {
			wrong[t] = float64(p.scale) * dot(of, errors[t*d:(t+1)*d])
		}
	}
	var all, shifted, mean float64 // Σ e^s, Σ e^(s+δ), Σ e^s·δ
	for t, s := range scores {
		e := math.Exp(s - top)
		all, shifted, mean = all+e, shifted+e*math.Exp(wrong[t]), mean+e*wrong[t]
	}
	return math.Log(shifted/all) - mean/all
}

func dot(a, b []float32) float64 {
	var s0, s1, s2, s3 float32
	for i := 0; i+3 < len(a); i += 4 {
		s0, s1, s2, s3 = s0+a[i]*b[i], s1+a[i+1]*b[i+1], s2+a[i+2]*b[i+2], s3+a[i+3]*b[i+3]
	}
	return float64(s0 + s1 + s2 + s3)
}

// measured is what ways to code K do to attention, mean over queries:
// [layer × KV head][way].
func measured(ctx context.Context, ops kernels.Ops, probes []*probe, cal *quant.Calibration, ways func(layer, head int) []way, progress func(done float64)) ([][]float64, error) {
	out := make([][]float64, cal.Layers*cal.KVHeads)
	errs := make([]error, len(out))
	for layer := range cal.Layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		ops.Parallel(cal.KVHeads, kernels.TaskFunc(func(head int) {
			at := layer*cal.KVHeads + head
			out[at], errs[at] = measureHead(ops, probes, cal, layer, head, ways(layer, head))
		}))
		progress(float64(layer+1) / float64(cal.Layers))
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func measureHead(ops kernels.Ops, probes []*probe, cal *quant.Calibration, layer, head int, ways []way) ([]float64, error) {
	out := make([]float64, len(ways))
	for i, w := range ways {
		sum, n := 0.0, 0
		for _, p := range probes {
			s, m, err := p.divergence(ops, cal, layer, head, w)
			if err != nil {
				return nil, err
			}
			sum, n = sum+s, n+m
		}
		out[i] = sum / float64(max(n, 1))
	}
	return out, nil
}
