package ref

import (
	"fmt"

	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/tensor"
)

// Measured on two x86-64 machines: four weight rows against one activation row
// is the largest tile whose pointers and sums the compiler keeps in registers
// (4×2 and 8×1 spill and run at 60 % of it). A panel of four rows of 512 stays
// in the L1 cache while all rows of the batch pass by, and is a whole number of
// the longest blocks (256).
const (
	tileRows = 4
	panelLen = 512
	jobRows  = 32 // weight rows of one parallel job
)

// panel is the widened part of tileRows weight rows.
type panel [tileRows][panelLen]float32

// matrix is a weight matrix as it lies in its file.
type matrix struct{ tensor.Tensor }

func (m matrix) Shape() (out, in int) { return m.Tensor.Shape[0], m.Tensor.Shape[1] }

// Pack keeps w as it is.
func (o *Ops) Pack(w tensor.Tensor) kernels.Matrix { return matrix{w} }

// Linear computes Dst[r][o] = Σ_i x[r][i]·W[o][i] + Bias[o] of each projection.
func (o *Ops) Linear(x []float32, rows int, ps []kernels.Projection) {
	for _, p := range ps {
		o.project(p.Dst, x, rows, p.W.(matrix).Tensor, p.Bias)
	}
}

// project is one projection. Weights are widened once per call, panel by panel.
// The sum of one output goes through a panel in order and then over the panels
// in order.
func (o *Ops) project(dst, x []float32, rows int, w tensor.Tensor, bias []float32) {
	out, in := w.Shape[0], w.Shape[1]
	if len(dst) < rows*out || len(x) < rows*in || bias != nil && len(bias) != out {
		panic(fmt.Sprintf("BUG: linear %s %v of %d rows: dst %d, x %d, bias %d", w.Name, w.Shape, rows, len(dst), len(x), len(bias)))
	}
	l := linear{dst: dst[:rows*out], x: x[:rows*in], rows: rows, out: out, in: in, w: w, bias: bias}
	o.Parallel((out+jobRows-1)/jobRows, kernels.TaskFunc(func(i int) {
		p := o.panels.Get().(*panel)
		for row := i * jobRows; row < min(out, (i+1)*jobRows); row += tileRows {
			l.tile(p, row, min(tileRows, out-row))
		}
		o.panels.Put(p)
	}))
}

type linear struct {
	dst, x        []float32
	rows, out, in int
	w             tensor.Tensor
	bias          []float32
}

// tile computes n outputs from output first on, for all rows.
func (l *linear) tile(p *panel, first, n int) {
	for r := range l.rows {
		d := l.dst[r*l.out+first:][:n]
		if l.bias == nil {
			clear(d)
		} else {
			copy(d, l.bias[first:])
		}
	}
	for at := 0; at < l.in; at += panelLen {
		width := min(panelLen, l.in-at)
		for i := range n {
			row := l.w.Row(first + i)
			widen(p[i][:width], l.w.DType, row[l.w.DType.RowBytes(at):l.w.DType.RowBytes(at+width)])
		}
		if n == tileRows {
			l.full(p, first, at, width)
		} else {
			l.rest(p, first, n, at, width)
		}
	}
}

// full adds one panel's part of tileRows outputs.
func (l *linear) full(p *panel, first, at, width int) {
	for r := range l.rows {
		a, b, c, d := dot4(p[0][:width], p[1][:width], p[2][:width], p[3][:width], l.x[r*l.in+at:][:width])
		y := l.dst[r*l.out+first:][:4]
		y[0] += a
		y[1] += b
		y[2] += c
		y[3] += d
	}
}

// rest adds one panel's part of the last n outputs.
func (l *linear) rest(p *panel, first, n, at, width int) {
	for r := range l.rows {
		x := l.x[r*l.in+at:][:width]
		for i := range n {
			l.dst[r*l.out+first+i] += dot(p[i][:width], x)
		}
	}
}

// dot4 is four dot products with x, each summed in order: four chains hide the
// latency of the additions.
func dot4(w0, w1, w2, w3, x []float32) (a, b, c, d float32) {
	w0, w1, w2, w3 = w0[:len(x)], w1[:len(x)], w2[:len(x)], w3[:len(x)]
	for i, v := range x {
		a += w0[i] * v
		b += w1[i] * v
		c += w2[i] * v
		d += w3[i] * v
	}
	return a, b, c, d
}

// dot is one of dot4's sums.
func dot(w, x []float32) (a float32) {
	w = w[:len(x)]
	for i, v := range x {
		a += w[i] * v
	}
	return a
}
