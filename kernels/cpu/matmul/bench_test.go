package matmul

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/huge"
	"github.com/terse-llm/terse/tensor"
)

// The floor of one row is the weights' bytes over the memory's bandwidth
// (BenchmarkRead, at as many threads); of many rows the multiply-adds over the
// peak that the package comment gives. Names are rows×out×in, dtype, level,
// threads.
func BenchmarkMultiply(b *testing.B) {
	for _, shape := range [][3]int{{1, 256, 2048}, {1, 2048, 8192}, {4, 2048, 8192}, {32, 2048, 2048}, {512, 2048, 2048}} {
		for _, d := range dtypes {
			for _, l := range cpu.Levels() {
				for threads := 1; threads <= 2; threads++ {
					b.Run(fmt.Sprintf("%dx%dx%d/%v/%v/%d", shape[0], shape[1], shape[2], d, l, threads), func(b *testing.B) {
						benchmark(b, l, d, shape[0], shape[1], shape[2], threads)
					})
				}
			}
		}
	}
}

func benchmark(b *testing.B, l cpu.Level, d tensor.DType, rows, out, in, threads int) {
	if l == cpu.Generic && rows > 1 {
		b.Skip("slow")
	}
	rng := rand.New(rand.NewPCG(8, 1))
	layers := layers(l, weights(rng, d, out, in), rows <= 8 && out >= 2048)
	x, y := random(rng, rows*in), make([]float32, rows*out)
	a, s := prepared(layers[0], x, rows), make([]Scratch, threads)
	b.ResetTimer()
	each(threads, func(i int) { // to start threads for every product would be timed too
		for n := range b.N {
			m := layers[n%len(layers)]
			m.Multiply(y, out, a, i*m.Panels()/threads, (i+1)*m.Panels()/threads, nil, &s[i])
		}
	})
	seconds := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(float64(layers[0].Bytes())/seconds/1e9, "GB/s")
	b.ReportMetric(float64(rows*out*in)/seconds/1e9, "GMAC/s")
}

// layers is w, or as many copies of it as do not fit into the caches, which are
// walked in turn as a decode step walks its layers.
func layers(l cpu.Level, w tensor.Tensor, many bool) []*Matrix {
	m := packed(For(l), w)
	all := []*Matrix{m}
	for many && len(all)*m.Bytes() < 128<<20 {
		c := *m
		c.data = huge.Bytes(len(m.data))
		copy(c.data, m.data)
		all = append(all, &c)
	}
	return all
}

// each runs f(0..n-1) at the same time.
func each(n int, f func(i int)) {
	var wait sync.WaitGroup
	for i := 1; i < n; i++ {
		wait.Go(func() { f(i) })
	}
	f(0)
	wait.Wait()
}

// BenchmarkRead is the memory's bandwidth, by eight bytes of every cache line of
// 256 MiB: the prefetchers see the same stream as from a kernel.
func BenchmarkRead(b *testing.B) {
	data := huge.Bytes(256 << 20)
	for i := range data {
		data[i] = byte(i)
	}
	for threads := 1; threads <= 2; threads++ {
		b.Run(fmt.Sprint(threads), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			sums := make([]uint64, threads)
			for b.Loop() {
				each(threads, func(i int) {
					sum := uint64(0)
					for p := data[i*len(data)/threads : (i+1)*len(data)/threads]; len(p) >= 64; p = p[64:] {
						sum += binary.LittleEndian.Uint64(p)
					}
					sums[i] = sum
				})
			}
		})
	}
}

func BenchmarkPrepare(b *testing.B) {
	rng := rand.New(rand.NewPCG(9, 1))
	for _, d := range []tensor.DType{tensor.F32, tensor.Q8_0} {
		for _, l := range cpu.Levels() {
			b.Run(fmt.Sprintf("%v/%v", d, l), func(b *testing.B) {
				m := For(l).NewMatrix(weights(rng, d, 1, 2048))
				x, a := random(rng, 64*2048), new(Activations)
				a.Reset(m, 64)
				for b.Loop() {
					a.Prepare(x, 0, a.Groups())
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(64*2048), "ns/value")
			})
		}
	}
}

func BenchmarkPack(b *testing.B) {
	rng := rand.New(rand.NewPCG(10, 1))
	for _, d := range dtypes {
		b.Run(d.String(), func(b *testing.B) {
			w := weights(rng, d, 256, 2048)
			m := For(cpu.Best()).NewMatrix(w)
			b.SetBytes(int64(len(w.Data)))
			for b.Loop() {
				m.Pack(0, m.Panels())
			}
		})
	}
}
