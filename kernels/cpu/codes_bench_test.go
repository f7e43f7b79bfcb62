package cpu_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/huge"
	"github.com/terse-llm/terse/kernels/cpu/codes"
	"github.com/terse-llm/terse/kernels/cpu/softmax"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// codedHead attends with a group of four query heads to one KV head's coded pages,
// as a decode step does: the inner loop of the product, without its client.
type codedHead struct {
	c *codes.Kernels
	s *softmax.Kernels
	g *quant.Geometry

	q          []int8 // [4][width]
	top        [4]float32
	sum        [4]float32
	out        []float32
	t          softmax.Tile
	m          codes.Merge
	dots       [4 * codes.Tokens]int32
	step, bias [codes.Tokens]float32
	sums, low  []int32
}

func newCodedHead(g *quant.Geometry, l cpu.Level, r *rand.Rand) *codedHead {
	d := g.HeadDim
	wk, wv := g.HQ[quant.HalfK].Segments[0].Width, g.HQ[quant.HalfV].Segments[0].Width
	h := &codedHead{c: codes.For(l), s: softmax.For(l), g: g}
	h.q, h.out = make([]int8, 4*wk), make([]float32, 4*d)
	h.sums, h.low = make([]int32, 4*wv), make([]int32, 4*wv)
	x := make([]float32, d)
	for v := range 4 {
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		top := h.c.MaxAbs(x)
		h.t.QSum[v] = float32(h.c.Quantise(h.q[v*wk:(v+1)*wk], x, top))
		h.t.Factor[v] = top / 127 * 0.1 * softmax.Log2E
		h.top[v] = -1e30
	}
	return h
}

// tile adds up to four pages. ahead is what will be read next.
func (h *codedHead) tile(pages, ahead [][]byte) {
	k, v := &h.g.HQ[quant.HalfK].Segments[0], &h.g.HQ[quant.HalfV].Segments[0]
	n := 64 * len(pages)
	for i, p := range pages {
		h.c.KeyScales(h.step[64*i:64*i+64], h.bias[64*i:64*i+64], p[k.Scale:], zeros(p, k.Zero), second(k), false)
	}
	// Every pass over planes fetches what the next one reads.
	var stretches [5]codes.Ahead
	passes := 0
	for _, s := range []*quant.Segment{k, v} {
		stretches[passes] = codes.Ahead{Pages: pages, Off: s.Scale, Len: s.Top - s.Scale + 16*s.Width}
		passes++
		if s.Low >= 0 {
			stretches[passes] = codes.Ahead{Pages: pages, Off: s.Low, Len: 16 * s.Width}
			passes++
		}
	}
	stretches[passes] = stretches[0]
	stretches[passes].Pages = ahead
	pass := 0
	fetch := func() codes.Ahead {
		pass++
		return stretches[pass]
	}
	h.c.PageProducts(h.dots[:], h.q, 4, codes.Planes{Pages: pages, Off: k.Top, Width: k.Width, Rows: 64}, false, fetch())
	if k.Low >= 0 {
		h.c.PageProducts(h.dots[:], h.q, 4, codes.Planes{Pages: pages, Off: k.Low, Width: k.Width, Rows: 64}, true, fetch())
	}
	h.t.End = [4]int{n, n, n, n}
	h.s.Scores(&h.t, h.dots[:], h.step[:n], h.bias[:n], 4, false)
	for j := range 4 {
		top := max(h.top[j], h.t.Max[j]*h.t.Factor[j])
		h.m.Alpha[j] = softmax.Exp2(h.top[j] - top)
		h.top[j], h.t.Top[j] = top, top
	}
	centre := h.bias[:n]
	for i, p := range pages {
		h.c.ValueScales(h.step[64*i:64*i+64], h.bias[64*i:64*i+64], p[v.Scale:], zeros(p, v.Zero), second(v))
	}
	if v.Zero < 0 {
		centre = nil
	}
	h.s.WeighBy(&h.t, h.step[:n], centre, 4, n)
	h.s.Quantise(&h.t, 4, n)
	weights := unsafe.Slice(&h.t.P[0][0], 4*codes.Tokens)
	h.c.PageSums(h.sums, weights, 4, codes.Planes{Pages: pages, Off: v.Top, Width: v.Width, Rows: 64}, fetch())
	if v.Low >= 0 {
		h.c.PageSums(h.low, weights, 4, codes.Planes{Pages: pages, Off: v.Low, Width: v.Width, Rows: 64}, fetch())
	}
	low := h.low
	if v.Low < 0 {
		low = nil
	}
	for j := range 4 {
		h.sum[j] = h.m.Alpha[j]*h.sum[j] + h.t.Sum[j]
		h.m.Scale[j], h.m.Centre[j] = softmax.Step(h.t.Largest[j]), h.t.Centre[j]
		h.m.Sum[j] = h.t.PSum[j]
		h.m.LowSum[j] = 0
		if low != nil {
			h.m.LowSum[j] = h.t.PSum[j]
		}
	}
	h.c.Merge(&h.m, h.out, h.sums, low, 4, h.g.HeadDim, v.Width, h.g.HeadDim)
}

func zeros(p []byte, at int) []byte {
	if at < 0 {
		return nil
	}
	return p[at:]
}

func second(s *quant.Segment) uint64 {
	if s.Low >= 0 {
		return ^uint64(0)
	}
	return 0
}

// BenchmarkDecodeCodes prints nanoseconds per token and KV head, four query heads,
// d = 128, 16K tokens, one thread: "dram" walks 16 layers of 8 heads, "cache" one
// head again and again. The floors are in package codes.
func BenchmarkDecodeCodes(b *testing.B) {
	const layers, heads, tokens = 16, 8, 16384
	for _, name := range []string{"hq2,sym=on", "hq2,sym=off", "hq3,sym=on", "hq4,sym=on"} {
		f, err := quant.ParseFormat(name, false)
		if err != nil {
			b.Fatal(err)
		}
		g, err := quant.NewGeometry(f, layers, heads, 128)
		if err != nil {
			b.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, 1))
		pages := randomPages(g, tokens/64, r)
		for _, where := range []string{"dram", "cache"} {
			for _, l := range cpu.Levels() {
				b.Run(fmt.Sprintf("%s/%s/%v", where, name, l), func(b *testing.B) {
					h := newCodedHead(g, l, r)
					list := make([][]byte, len(pages)+4)
					at := 0
					for b.Loop() {
						for i, p := range pages {
							list[i] = g.CodedHead(p[at/heads*g.CodedBytes():], at%heads)
						}
						for i := 0; i < len(pages); i += 4 {
							h.tile(list[i:i+4], list[min(i+4, len(pages)-4):][:4])
						}
						if where == "dram" {
							at = (at + 1) % (layers * heads)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tokens, "ns/token")
				})
			}
		}
	}
}

// BenchmarkPrefillCodes prints nanoseconds per token, KV head and four vectors of
// 64 rows of four query heads over the same 4K tokens: the pages of a tile are in
// the cache for all but the first. Unpacking for every four vectors costs AVX2 7 of
// 39 vector operations, and AVX-512 nothing, because it is bound by VPDPBUSD.
func BenchmarkPrefillCodes(b *testing.B) {
	const rows, tokens = 64, 4096
	f, err := quant.ParseFormat("hq2,sym=on", false)
	if err != nil {
		b.Fatal(err)
	}
	g, err := quant.NewGeometry(f, 1, 1, 128)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	pages := randomPages(g, tokens/64, r)
	for _, l := range cpu.Levels() {
		b.Run("hq2,sym=on/"+l.String(), func(b *testing.B) {
			heads := make([]*codedHead, rows)
			for i := range heads {
				heads[i] = newCodedHead(g, l, r)
			}
			for b.Loop() {
				for i := 0; i < len(pages); i += 4 {
					for _, h := range heads {
						h.tile(pages[i:i+4], nil)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tokens/rows, "ns/token")
		})
	}
}

func randomPages(g *quant.Geometry, n int, r *rand.Rand) [][]byte {
	pages := huge.Split(n, g.Layers*g.CodedBytes())
	for _, p := range pages {
		for j := range p {
			p[j] = byte(r.Uint32())
		}
		for head := range g.Layers * g.KVHeads {
			for half := range 2 {
				s := &g.HQ[half].Segments[0]
				for t := range 64 {
					at := head * g.HeadBytes
					tensor.PutF16(p[at+s.Scale:], t, 0.5+r.Float32())
					if s.Zero >= 0 {
						tensor.PutF16(p[at+s.Zero:], t, -r.Float32())
					}
				}
			}
		}
	}
	return pages
}
