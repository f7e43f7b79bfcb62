package ref

import (
	"math"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// RMSNorm computes dst[r] = x[r]/sqrt(mean(x[r]²)+eps)·weight for every run of
// len(weight) elements of x; dst may be x.
func (o *Ops) RMSNorm(dst, x, weight []float32, eps float32) {
	n := len(weight)
	o.split(len(x)/n, n, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			rmsNorm(dst[r*n:][:n], x[r*n:][:n], weight, eps)
		}
	})
}

func rmsNorm(dst, x, weight []float32, eps float32) {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	scale := float32(1 / math.Sqrt(sum/float64(len(x))+float64(eps)))
	for i, v := range x {
		dst[i] = v * scale * weight[i]
	}
}

// RoPE rotates every head of x ([rows][heads][headDim]) in place by its row's
// angles. Channels beyond the rotary dimension stay.
func (o *Ops) RoPE(x []float32, heads, headDim int, a *kernels.Angles) {
	width := heads * headDim
	o.split(len(x)/width, width, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			cos, sin := a.Cos[r*a.Pairs:][:a.Pairs], a.Sin[r*a.Pairs:][:a.Pairs]
			for h := range heads {
				head := x[r*width+h*headDim:][:headDim]
				if a.Interleaved {
					rotatePairs(head, cos, sin)
				} else {
					rotateHalves(head, cos, sin)
				}
			}
		}
	})
}

func rotateHalves(head, cos, sin []float32) {
	n := len(cos)
	a, b := head[:n], head[n:2*n]
	for i, c := range cos {
		s, x, y := sin[i], a[i], b[i]
		a[i], b[i] = x*c-y*s, y*c+x*s
	}
}

func rotatePairs(head, cos, sin []float32) {
	for i, c := range cos {
		p := head[2*i : 2*i+2]
		s, x, y := sin[i], p[0], p[1]
		p[0], p[1] = x*c-y*s, y*c+x*s
	}
}

// SwiGLU computes gate = gate/(1+exp(-gate))·up in place.
func (o *Ops) SwiGLU(gate, up []float32) {
	o.split(len(gate), 1, func(lo, hi int) {
		u := up[lo:hi]
		for i, g := range gate[lo:hi] {
			gate[lo+i] = float32(float64(g)/(1+math.Exp(-float64(g)))) * u[i]
		}
	})
}

// Add adds y to every run of len(y) elements of x.
func (o *Ops) Add(x, y []float32) {
	if len(x) != len(y) {
		quant.Plain{}.Add(x, y)
		return
	}
	o.split(len(x), 1, func(lo, hi int) { quant.Plain{}.Add(x[lo:hi], y[lo:hi]) })
}

// Map multiplies heads with the matrix of their KV head.
func (o *Ops) Map(x []float32, heads, d int, m []float32) {
	row := heads * d
	o.split(len(x)/row, row*d, func(lo, hi int) { quant.Plain{}.Map(x[lo*row:hi*row], heads, d, m) })
}

// Rotate turns heads into the cache's basis or back.
func (o *Ops) Rotate(x []float32, r *quant.Rotation, inverse bool) {
	d := len(r.Signs)
	o.split(len(x)/d, d, func(lo, hi int) { quant.Plain{}.Rotate(x[lo*d:hi*d], r, inverse) })
}

// Embed widens the rows ids of table into dst ([len(ids)][dim]).
func (o *Ops) Embed(dst []float32, table tensor.Tensor, ids []int32) {
	dim := table.Shape[1]
	for i, id := range ids {
		widen(dst[i*dim:][:dim], table.DType, table.Row(int(id)))
	}
}
