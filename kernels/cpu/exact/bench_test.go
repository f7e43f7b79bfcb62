package exact

import (
	"fmt"
	"sync"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/tensor"
)

// pages is K and V of one KV head, page after page.
type pages struct {
	k, v []Rows
}

func newPages(typ tensor.DType, d, n int) *pages {
	const tokens = 64
	size := tokens * Rows{Type: typ}.stride(d)
	data := make([]byte, 2*n*size)
	for i := range data {
		data[i] = byte(i*7) & 0x3b // small numbers
	}
	p := &pages{}
	for i := range n {
		p.k = append(p.k, Rows{Data: data[2*i*size : (2*i+1)*size], Type: typ})
		p.v = append(p.v, Rows{Data: data[(2*i+1)*size : (2*i+2)*size], Type: typ})
		p.k[i].Next = p.v[i].Data
		if i > 0 {
			p.v[i-1].Next = p.k[i].Data
		}
	}
	return p
}

// attend is QK and PV of n query vectors over all pages, without the softmax.
func (p *pages) attend(k Kernels, n, d int, q, w, acc []float32) {
	for i := range p.k {
		k.QK(w, 64, q, n, d, p.k[i])
		k.PV(acc, n, d, w, 64, p.v[i])
	}
}

// BenchmarkDecode is one query of 32 heads over 8 KV heads of 16K tokens, its QK
// and PV, per token and KV head. Floors: 4·d bytes from memory, 8·d multiply-adds
// of 2 a cycle and vector lane.
func BenchmarkDecode(b *testing.B) {
	for _, at := range []struct {
		name  string
		pages int // of each of 8 KV heads
	}{{"16K", 256}, {"cache", 2}} {
		for _, d := range []int{64, 128} {
			heads := make([]*pages, 8)
			for i := range heads {
				heads[i] = newPages(tensor.F16, d, at.pages)
			}
			for _, level := range cpu.Levels()[1:] {
				for _, threads := range []int{1, 2} {
					b.Run(fmt.Sprintf("%s/32q8kv/d%d/f16/%v/%dT", at.name, d, level, threads), func(b *testing.B) {
						decode(b, For(level), heads, d, threads)
					})
				}
			}
		}
	}
}

func decode(b *testing.B, k Kernels, heads []*pages, d, threads int) {
	b.ReportAllocs()
	var wg sync.WaitGroup
	for thread := range threads {
		wg.Go(func() {
			q, w, acc := make([]float32, 4*d), make([]float32, 4*64), make([]float32, 4*d)
			for range b.N {
				for h := thread; h < len(heads); h += threads {
					heads[h].attend(k, 4, d, q, w, acc)
				}
			}
		})
	}
	wg.Wait()
	tokens := float64(b.N) * float64(len(heads)*len(heads[0].k)*64)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/tokens, "ns/token-head")
	b.ReportMetric(tokens*float64(4*d)/float64(b.Elapsed().Nanoseconds()), "GB/s")
}

// BenchmarkTile is one page in cache: its QK and its PV for one decode step's
// vectors, and for 64 of a prompt's.
func BenchmarkTile(b *testing.B) {
	const d = 128
	for _, level := range cpu.Levels() {
		for _, typ := range types {
			p := newPages(typ, d, 1)
			p.k[0].Next = nil
			for _, n := range []int{1, 2, 3, 4, 5, 6, 7, 64} {
				q, w, acc := make([]float32, n*d), make([]float32, n*64), make([]float32, n*d)
				report := func(b *testing.B) { // 48 is about the peak of two 256-bit units at 3 GHz
					b.ReportMetric(float64(b.N)*float64(n*64*d)/float64(b.Elapsed().Nanoseconds()), "Gfma/s")
				}
				b.Run(fmt.Sprintf("QK/%dx64/d%d/%v/%v", n, d, typ, level), func(b *testing.B) {
					for b.Loop() {
						For(level).QK(w, 64, q, n, d, p.k[0])
					}
					report(b)
				})
				b.Run(fmt.Sprintf("PV/%dx64/d%d/%v/%v", n, d, typ, level), func(b *testing.B) {
					for b.Loop() {
						For(level).PV(acc, n, d, w, 64, p.v[0])
					}
					report(b)
				})
			}
		}
	}
}

// BenchmarkWiden is K and V of a page.
func BenchmarkWiden(b *testing.B) {
	const d = 128
	p, dst := newPages(tensor.F16, d, 1), make([]byte, 4*64*d)
	for _, level := range cpu.Levels() {
		b.Run(fmt.Sprintf("64x%d/%v", d, level), func(b *testing.B) {
			for b.Loop() {
				For(level).Widen(dst, p.k[0])
				For(level).Widen(dst, p.v[0])
			}
		})
	}
}
