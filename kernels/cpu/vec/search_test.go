package vec

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
)

func argMaxPlain(x []float32) int {
	best, at := minusInf, 0
	for i, v := range x {
		if v > best {
			best, at = v, i
		}
	}
	return at
}

func atLeastPlain(x []float32, floor float32) (at []int32) {
	for i, v := range x {
		if v >= floor {
			at = append(at, int32(i))
		}
	}
	return at
}

func TestMaxAndArgMax(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, twin *Kernels) {
		check := func(x []float32) {
			t.Helper()
			if got, want := k.Max(x), twin.Max(x); got != want {
				t.Fatalf("the largest of %d is %g, want %g", len(x), got, want)
			}
			if got, want := k.ArgMax(x), argMaxPlain(x); got != want {
				t.Fatalf("the largest of %d is at %d, want %d", len(x), got, want)
			}
			got, want := make([]float32, Groups(len(x))), make([]float32, Groups(len(x)))
			k.GroupMax(got, x)
			twin.GroupMax(want, x)
			for _, floor := range []float32{-2, 0.5, inf} {
				among := AtLeast(nil, x, got, floor)
				slices.Sort(among)
				if all := atLeastPlain(x, floor); !slices.Equal(among, all) {
					t.Fatalf("of %d, at least %g are %v, want %v", len(x), floor, among, all)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("the groups' largest of %d are %v, want %v", len(x), got, want)
			}
		}
		for _, n := range append(lengths(), 4095, 4096, 4097, 12_345) {
			for seed := range uint64(4) {
				x := random(seed, n, 1)
				check(x)
				check(withSpecials(x, seed))
				for i := range x { // many equals, and all below zero
					x[i] = -float32(1 + i*7%5)
				}
				check(x)
			}
			x := make([]float32, n)
			for _, v := range specials {
				for i := range x {
					x[i] = v
				}
				check(x)
				if n > 0 {
					x[n-1] = -5
					check(x)
					x[n/2], x[n-1] = 7, 7
					check(x)
				}
			}
		}
	})
}

func TestExpSum(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, twin *Kernels) {
		for _, n := range append(lengths(), 12_345) {
			for _, factor := range []float32{1, 0.5, 1.7, 1000} {
				x := random(uint64(n), n, 10)
				shift := max(0, twin.Max(x))
				withoutMore(withSpecials(x, uint64(n)), shift)
				want := make([]float32, n)
				wantSum := twin.ExpSum(want, x, shift, factor)
				dst, check := guarded(n, n)
				sum := k.ExpSum(dst, x, shift, factor)
				check(t)
				for i := range dst {
					if !near(dst[i], want[i], 1e-6) || (dst[i] == 0) != (want[i] == 0) {
						t.Fatalf("n %d: exp((%g-%g)·%g) = %g, want %g", n, x[i], shift, factor, dst[i], want[i])
					}
				}
				if math.Abs(sum-wantSum) > 1e-6*wantSum {
					t.Fatalf("n %d: sum %g, want %g", n, sum, wantSum)
				}
				if got := k.ExpSum(x, x, shift, factor); got != sum || !slices.Equal(x, dst) {
					t.Fatalf("n %d: in place the sum is %g, elsewhere %g", n, got, sum)
				}
			}
		}
	})
}

// withoutMore keeps what ExpSum is for.
func withoutMore(x []float32, limit float32) {
	for i := range x {
		if x[i] > limit {
			x[i] = limit
		}
	}
}

// The exponential is good to 1e-6 over its whole range, against float64.
func TestExpAccuracy(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, _ *Kernels) {
		var x []float32
		for y := float32(0); y >= smallest; y = y*1.0007 - 1e-4 {
			x = append(x, y)
		}
		dst := make([]float32, len(x))
		k.ExpSum(dst, x, 0, 1)
		worst := 0.0
		for i, y := range x {
			want := math.Exp(float64(y))
			worst = max(worst, math.Abs(float64(dst[i])/want-1))
		}
		if worst > 3e-7 {
			t.Errorf("relative error %.2g", worst)
		}
	})
}

func TestSoftmax(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, _ *Kernels) {
		x := []float32{1, 2, nan, -inf, 0}
		k.Softmax(x)
		total := math.Exp(-1) + 1 + math.Exp(-2)
		for i, want := range []float64{math.Exp(-1) / total, 1 / total, 0, 0, math.Exp(-2) / total} {
			if math.Abs(float64(x[i])-want) > 1e-7 {
				t.Errorf("%d: %g, want %g", i, x[i], want)
			}
		}
		k.Softmax(nil)
		none := []float32{-inf, nan}
		k.Softmax(none)
		if none[0] != 0 || none[1] != 0 {
			t.Errorf("the softmax of nothing is %v", none)
		}
	})
}

// FuzzSearch holds every level's searches to plain Go's on any bit pattern.
func FuzzSearch(f *testing.F) {
	f.Add([]byte{0, 0, 192, 127, 0, 0, 128, 255, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		x := make([]float32, len(b)/4)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
		for _, l := range cpu.Levels() {
			k := For(l)
			if got, want := k.ArgMax(x), argMaxPlain(x); got != want {
				t.Errorf("%v: the largest is at %d, want %d", l, got, want)
			}
		}
	})
}

func BenchmarkVocabulary(b *testing.B) {
	const n = 128_256
	x, dst := random(1, n, 3), make([]float32, n)
	for _, l := range cpu.Levels() {
		k := For(l)
		bench := func(name string, f func()) {
			b.Run(fmt.Sprintf("%s-%d/%v", name, n, l), func(b *testing.B) {
				b.SetBytes(4 * n)
				for b.Loop() {
					f()
				}
			})
		}
		bench("argmax", func() { k.ArgMax(x) })
		bench("groupmax", func() { k.GroupMax(dst, x) })
		shift := k.Max(x)
		bench("expsum", func() { k.ExpSum(dst, x, shift, 1) })
	}
}
