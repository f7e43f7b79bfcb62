package ref

import (
	"math"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/tensor"
)

// Attend runs the jobs over the cores. Only tiles read exactly are computed.
func (o *Ops) Attend(jobs []kernels.AttnJob) {
	o.Parallel(len(jobs), func(i int) { attendExact(&jobs[i]) })
}

// attendExact is the attention of one job with an online softmax: per tile, K
// and V are widened once for all rows.
func attendExact(j *kernels.AttnJob) {
	d := j.Geometry.HeadDim
	n := len(j.Limit) * j.Group
	top, sum := make([]float32, n), make([]float32, n)
	for i := range top {
		top[i] = float32(math.Inf(-1))
	}
	clear(j.Out)
	page := j.Geometry.Format.PageTokens
	k, v, p := make([]float32, page*d), make([]float32, page*d), make([]float32, page)
	for _, t := range j.Tiles {
		if t.KCoded || t.VCoded {
			panic("BUG: a coded tile in exact attention")
		}
		m := t.Hi - t.Lo
		widen(k[:m*d], tensor.F16, j.Geometry.ExactK(t.Exact, j.Head)[2*t.Lo*d:2*t.Hi*d])
		widen(v[:m*d], tensor.F16, j.Geometry.ExactV(t.Exact, j.Head)[2*t.Lo*d:2*t.Hi*d])
		for i := range n {
			seen := min(m, j.Limit[i/j.Group]-t.First-t.Lo)
			if seen > 0 {
				addTile(j.Out[i*d:(i+1)*d], j.Q[i*d:(i+1)*d], k, v, p[:seen], j.Scale, &top[i], &sum[i])
			}
		}
	}
	for i := range n {
		for c := range d {
			j.Out[i*d+c] /= sum[i]
		}
	}
}

// addTile adds len(p) tokens to a running softmax of one query.
func addTile(out, q, k, v, p []float32, scale float32, top, sum *float32) {
	d := len(q)
	high := *top
	for t := range p {
		p[t] = scale * dot(k[t*d:(t+1)*d], q)
		high = max(high, p[t])
	}
	if shrink := float32(math.Exp(float64(*top - high))); shrink != 1 {
		*sum *= shrink
		for c := range out {
			out[c] *= shrink
		}
	}
	*top = high
	for t, s := range p {
		w := float32(math.Exp(float64(s - high)))
		*sum += w
		row := v[t*d : (t+1)*d]
		for c := range out {
			out[c] += w * row[c]
		}
	}
}
