package entropy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// draw makes n symbols of a two-sided geometric distribution over levels symbols, and
// their counts.
func draw(r *rand.Rand, n, levels int, ratio float64) ([]uint8, []uint64) {
	symbols, counts := make([]uint8, n), make([]uint64, levels)
	for i := range symbols {
		k := levels / 2
		for r.Float64() < ratio && k > 0 && k < levels-1 {
			if k > levels/2 || k == levels/2 && r.IntN(2) == 0 {
				k++
			} else {
				k--
			}
		}
		symbols[i] = uint8(k)
		counts[k]++
	}
	return symbols, counts
}

// entropyOf is the least bits that symbols of these counts take.
func entropyOf(counts []uint64) float64 {
	var n, bits float64
	for _, c := range counts {
		n += float64(c)
	}
	for _, c := range counts {
		if c > 0 {
			bits -= float64(c) * math.Log2(float64(c)/n)
		}
	}
	return bits
}

func table(t testing.TB, counts []uint64) *Table {
	t.Helper()
	tab, err := NewTable(Frequencies(counts))
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// What is coded comes back, in runs of any length, each of its own distribution.
func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, levels := range []int{2, 3, 15, 31, 255, 256} {
		for trial := range 60 {
			var runs [][]uint8
			var tables []*Table
			for range r.IntN(9) {
				ratio := r.Float64()
				_, counts := draw(r, 1000, levels, ratio)
				tables = append(tables, table(t, counts))
				run, _ := draw(r, r.IntN(70), levels, ratio)
				if trial%5 == 0 && len(run) > 0 {
					run[r.IntN(len(run))] = uint8(r.IntN(levels)) // one that was never counted
				}
				runs = append(runs, run)
			}
			var e Encoder
			e.Reset()
			for i := len(runs) - 1; i >= 0; i-- {
				e.Run(runs[i], tables[i])
			}
			data := e.Append([]byte{7})[1:]
			n := 0
			for _, run := range runs {
				n += len(run)
			}
			if len(data) != e.Len() || len(data) > Bound(n) {
				t.Fatalf("%d bytes, said to be %d, bound %d", len(data), e.Len(), Bound(n))
			}
			d, err := NewDecoder(data)
			if err != nil {
				t.Fatal(err)
			}
			for i, run := range runs {
				got := make([]uint8, len(run))
				d.Run(got, tables[i])
				if !slices.Equal(got, run) {
					t.Fatalf("%d levels, run %d: got %v, want %v", levels, i, got, run)
				}
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Sizes are within 1 % of what the symbols' own frequencies allow at best.
func TestSizeIsTheEntropy(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, levels := range []int{15, 31, 255} {
		for _, ratio := range []float64{0.3, 0.6, 0.8, 0.95} {
			if levels == 255 && ratio < 0.5 {
				continue // 250 levels that never come, at 1/16384 each, are more than that
			}
			symbols, counts := draw(r, 64<<10, levels, ratio)
			var e Encoder
			e.Reset()
			e.Run(symbols, table(t, counts))
			got, best := float64(8*e.Len()), entropyOf(counts)
			t.Logf("%d levels, ratio %g: %.4f bits a symbol, entropy %.4f", levels, ratio, got/float64(len(symbols)), best/float64(len(symbols)))
			if got > 1.01*best {
				t.Errorf("%d levels, ratio %g: %.0f bits, the entropy is %.0f", levels, ratio, got, best)
			}
		}
	}
}

// Distributions that are none are refused, and whatever was counted makes one.
func TestTables(t *testing.T) {
	for _, f := range [][]uint16{nil, {Total}, {0, Total}, {1, Total}, {1, 2}, make([]uint16, 257), {Total - 1, 65535, 1}} {
		if _, err := NewTable(f); err == nil {
			t.Errorf("frequencies %v were taken", f)
		}
	}
	for _, counts := range [][]uint64{{0, 0}, {1, 0}, {0, math.MaxUint32, 0}, make([]uint64, 256), {1, 2, 3, 1 << 60}} {
		if _, err := NewTable(Frequencies(counts)); err != nil {
			t.Errorf("counts %v: %v", counts, err)
		}
	}
}

// Damage is seen: what is cut short, goes on, or has another word in it decodes to
// symbols of the table, and to an error at the end.
func TestDamage(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	symbols, counts := draw(r, 2000, 15, 0.7)
	tab := table(t, counts)
	var e Encoder
	e.Reset()
	e.Run(symbols, tab)
	data := e.Append(nil)
	f := func(what string, data []byte) {
		t.Helper()
		d, err := NewDecoder(data)
		if err != nil {
			return
		}
		got := make([]uint8, len(symbols))
		d.Run(got, tab)
		if d.Close() == nil {
			t.Errorf("%s was not noticed", what)
		}
	}
	for n := range len(data) {
		f(fmt.Sprintf("cut to %d bytes", n), data[:n])
	}
	f("two bytes more", append(slices.Clone(data), 0, 0))
	f("one byte more", append(slices.Clone(data), 0))
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789"), uint16(40), uint8(31))
	f.Add(make([]byte, 16), uint16(3), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, n uint16, levels uint8) {
		counts := make([]uint64, max(2, int(levels)))
		for i := range counts {
			counts[i] = uint64(i * i)
		}
		tab := table(t, counts)
		d, err := NewDecoder(data)
		if err != nil {
			return
		}
		got := make([]uint8, n)
		d.Run(got, tab)
		for _, s := range got {
			if int(s) >= len(counts) {
				t.Fatalf("symbol %d of %d", s, len(counts))
			}
		}
		if d.Close() != nil {
			return
		}
		var e Encoder // what decodes is what an encoder makes
		e.Reset()
		e.Run(got, tab)
		if again := e.Append(nil); !slices.Equal(again, data) {
			t.Fatalf("%x decodes and is coded as %x", data, again)
		}
	})
}

func BenchmarkRun(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, levels := range []int{15, 31} {
		symbols, counts := draw(r, 64, levels, 0.75)
		tab := table(b, counts)
		var e Encoder
		const runs = 128
		b.Run(fmt.Sprintf("encode/%d", levels), func(b *testing.B) {
			for b.Loop() {
				e.Reset()
				for range runs {
					e.Run(symbols, tab)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*runs*len(symbols)), "ns/symbol")
		})
		data := e.Append(nil)
		got := make([]uint8, len(symbols))
		b.Run(fmt.Sprintf("decode/%d", levels), func(b *testing.B) {
			for b.Loop() {
				d, _ := NewDecoder(data)
				for range runs {
					d.Run(got, tab)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*runs*len(symbols)), "ns/symbol")
		})
	}
}
