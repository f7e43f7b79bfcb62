package peak

import (
	"fmt"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
)

// Every loop runs, and reading goes over all sizes allowed without faulting.
func TestLoops(t *testing.T) {
	for _, l := range cpu.Levels() {
		k := For(l)
		for name, loop := range map[string]Loop{"fma": k.FMA, "maddubs": k.Maddubs, "dpbusd": k.Dpbusd} {
			if loop.Run == nil {
				if name == "fma" || l == cpu.AVX512 {
					t.Errorf("%v has no %s", l, name)
				}
				continue
			}
			if loop.Ops <= 0 {
				t.Errorf("%v: %s does %d operations", l, name, loop.Ops)
			}
			loop.Run(1)
			loop.Run(3)
		}
		for n := 512; n <= 4096; n += 512 {
			k.Read(make([]byte, n))
		}
		for _, n := range []int{0, 511, 513} {
			if !panics(func() { k.Read(make([]byte, n)) }) {
				t.Errorf("%v: %d bytes were read", l, n)
			}
		}
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return
}

func BenchmarkCompute(b *testing.B) {
	for _, l := range cpu.Levels() {
		k := For(l)
		for _, c := range []struct {
			name string
			loop Loop
		}{{"fma", k.FMA}, {"maddubs", k.Maddubs}, {"dpbusd", k.Dpbusd}} {
			if c.loop.Run == nil {
				continue
			}
			b.Run(fmt.Sprintf("%s/level=%v", c.name, l), func(b *testing.B) {
				const rounds = 10000
				for b.Loop() {
					c.loop.Run(rounds)
				}
				b.ReportMetric(float64(c.loop.Ops)*rounds*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "Gop/s")
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	buf := make([]byte, 256<<20)
	for i := range buf {
		buf[i] = byte(i)
	}
	for _, l := range cpu.Levels() {
		k := For(l)
		for _, size := range []int{24 << 10, 384 << 10, 8 << 20, len(buf)} {
			b.Run(fmt.Sprintf("bytes=%d/level=%v", size, l), func(b *testing.B) {
				b.SetBytes(int64(size))
				for b.Loop() {
					k.Read(buf[:size])
				}
			})
		}
	}
}
