package bench

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/huge"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/kernels/cpu/fused"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/kernels/kerneltest/cases"
	"github.com/terse-llm/terse/quant"
)

// controls are the kernels that others are held against and that no model runs:
// decoding over int4 and int8 that is dequantised in registers, at every shape
// that attention on codes is decoded at.
func controls(l cpu.Level) []cases.Work {
	var all []cases.Work
	for _, a := range cases.Attentions() {
		if a.Rows != 1 || a.Format.Name != "f16" {
			continue
		}
		for _, bits := range []int{4, 8} {
			all = append(all, fusedWork(a, l, bits))
		}
	}
	return all
}

func fusedWork(a cases.Attention, l cpu.Level, bits int) cases.Work {
	layout := fused.NewLayout(a.HeadDim, bits)
	w := a.Work()
	w.Name = fmt.Sprintf("%s/fused int%d", w.Group, bits)
	w.Base = a.String()
	w.Bytes = float64(a.Heads * a.Tokens / fusedPage * layout.Bytes)
	w.Setup = func(ops kernels.Ops) func() {
		d := newFusedDecode(a, l, &layout)
		return func() { d.run(ops) }
	}
	return w
}

const (
	fusedPage   = 64   // tokens of a page
	controlSpan = 2048 // tokens of one piece of work, as kernels/cpu cuts them
	controlTile = softmax.Tokens / fusedPage
)

// fusedDecode is one query row of every KV head over its pages, one layer after
// the other: what kernels/cpu does with float16, with the fused kernels.
type fusedDecode struct {
	a       cases.Attention
	kernels fused.Kernels
	softmax *softmax.Kernels
	layout  *fused.Layout
	layers  [][][]byte // [layer][head·pages]
	at      int        // the layer of this run
	queries []fused.Queries
	spans   []fusedSpan // [head][span]
	out     []float32
}

// fusedSpan is the state of one span of one head, and its scratch.
type fusedSpan struct {
	tile     softmax.Tile
	w        []float32 // [group][softmax.Tokens]
	acc      []float32 // [group][Width]
	top, sum []float32
}

func newFusedDecode(a cases.Attention, l cpu.Level, layout *fused.Layout) *fusedDecode {
	d := &fusedDecode{a: a, kernels: fused.For(l), softmax: softmax.For(l), layout: layout,
		queries: make([]fused.Queries, a.Heads), spans: make([]fusedSpan, a.Heads*a.Tokens/controlSpan), out: make([]float32, layout.Width)}
	r := rand.New(rand.NewPCG(1, 1))
	some := make([]byte, layout.Bytes)
	for half := range layout.Halves {
		layout.Encode(new(quant.Scratch), some, half, cases.Gaussian(r, fusedPage*a.HeadDim), 0, fusedPage)
	}
	pages := a.Heads * a.Tokens / fusedPage
	for range cases.Copies(pages * layout.Bytes) {
		layer := make([][]byte, pages)
		for i := 0; i < pages; i += a.Tokens / fusedPage { // a head's pages side by side: the best case
			for j, page := range huge.Split(a.Tokens/fusedPage, layout.Bytes) {
				copy(page, some)
				layer[i+j] = page
			}
		}
		d.layers = append(d.layers, layer)
	}
	for h := range d.queries {
		d.queries[h].Prepare(layout, cases.Gaussian(r, a.Group*a.HeadDim), a.Group)
	}
	for i := range d.spans {
		d.spans[i] = fusedSpan{w: make([]float32, a.Group*softmax.Tokens), acc: make([]float32, a.Group*layout.Width),
			top: make([]float32, a.Group), sum: make([]float32, a.Group)}
	}
	return d
}

func (d *fusedDecode) run(ops kernels.Ops) {
	ops.Parallel(len(d.spans), d)
	per := len(d.spans) / d.a.Heads
	for h := range d.a.Heads {
		d.fold(d.spans[h*per : (h+1)*per])
	}
	d.at = (d.at + 1) % len(d.layers)
}

// Do computes one span.
func (d *fusedDecode) Do(i int) {
	s, perHead := &d.spans[i], d.a.Tokens/fusedPage
	head := i * controlSpan / d.a.Tokens
	first := i*controlSpan/fusedPage - head*perHead
	pages := d.layers[d.at][head*perHead : (head+1)*perHead]
	clear(s.acc)
	clear(s.sum)
	for v := range s.top {
		s.top[v] = -1e30
	}
	for at := first; at < first+controlSpan/fusedPage; at += controlTile {
		for p := range controlTile {
			next := pages[at][d.layout.Halves[quant.HalfV].Scales:] // what is read next is fetched meanwhile
			if p+1 < controlTile {
				next = pages[at+p+1]
			}
			d.kernels.QK(s.w[p*fusedPage:], softmax.Tokens, &d.queries[head], d.layout, pages[at+p], next)
		}
		for v := 0; v < d.a.Group; v += softmax.Vectors {
			d.weigh(s, v, min(softmax.Vectors, d.a.Group-v))
		}
		for p := range controlTile {
			var next []byte
			if p+1 < controlTile {
				next = pages[at+p+1][d.layout.Halves[quant.HalfV].Scales:]
			} else if at+controlTile < perHead {
				next = pages[at+controlTile]
			}
			d.kernels.PV(s.acc, d.a.Group, s.w[p*fusedPage:], softmax.Tokens, d.layout, pages[at+p], next)
		}
	}
}

// weigh turns the scores of a tile into weights, for vectors [v, v+n).
func (d *fusedDecode) weigh(s *fusedSpan, v, n int) {
	scale := float32(1 / math.Sqrt(float64(d.a.HeadDim)))
	for i := range n {
		s.tile.End[i], s.tile.Factor[i] = softmax.Tokens, scale*softmax.Log2E
		copy(s.tile.S[i][:], s.w[(v+i)*softmax.Tokens:])
	}
	d.softmax.FindMax(&s.tile, n)
	var alpha [softmax.Vectors]float32
	for i := range n {
		old := s.top[v+i]
		s.top[v+i] = max(old, s.tile.Factor[i]*s.tile.Max[i])
		s.tile.Top[i] = s.top[v+i]
		alpha[i] = softmax.Exp2(old - s.top[v+i])
	}
	d.softmax.Weigh(&s.tile, n, softmax.Tokens)
	for i := range n {
		copy(s.w[(v+i)*softmax.Tokens:(v+i+1)*softmax.Tokens], s.tile.S[i][:])
		s.sum[v+i] = alpha[i]*s.sum[v+i] + s.tile.Sum[i]
		if alpha[i] != 1 {
			acc := s.acc[(v+i)*d.layout.Width : (v+i+1)*d.layout.Width]
			for c := range acc {
				acc[c] *= alpha[i]
			}
		}
	}
}

// fold puts the spans of a head together.
func (d *fusedDecode) fold(spans []fusedSpan) {
	for v := range d.a.Group {
		top, sum := spans[0].top[v], float32(0)
		for i := range spans {
			top = max(top, spans[i].top[v])
		}
		clear(d.out)
		for i := range spans {
			scale := softmax.Exp2(spans[i].top[v] - top)
			sum += scale * spans[i].sum[v]
			for c, x := range spans[i].acc[v*d.layout.Width : (v+1)*d.layout.Width] {
				d.out[c] += scale * x
			}
		}
		for c := range d.out {
			d.out[c] /= sum
		}
	}
}
