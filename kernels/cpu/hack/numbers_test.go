package hack

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/internal/guard"
	"github.com/terse-llm/terse/quant"
)

// Around the products every level computes the same bits, at any length, and
// touches nothing beyond it.
func TestNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	wide := func(n int) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(float32(r.NormFloat64()))
		}
		return x
	}
	generic := For(cpu.Generic)
	for _, level := range cpu.Levels() {
		k := For(level)
		for _, n := range []int{1, 3, 4, 8, 13, 32, 40, 64, 72, 100, 128} {
			x, src := guard.Floats(t, n), guard.Bytes(t, 2*n)
			for i := range x {
				x[i] = float32(r.NormFloat64())
			}
			for i := range n { // float16s and bfloat16s without infinities and NaNs
				src[2*i], src[2*i+1] = byte(r.Uint32()), byte(r.Uint32())&0xbb
			}
			scale, mins, sums, acc := wide(n), wide(n), wide(n), wide(n)
			dots := make([]int32, n)
			for i := range dots {
				dots[i] = r.Int32N(1 << 20)
			}
			same := func(what string, f func(k Kernels) []float64) {
				t.Helper()
				if got, want := f(k), f(generic); !slices.Equal(got, want) {
					t.Fatalf("%v, %d numbers: %s is %v, want %v", level, n, what, got, want)
				}
			}
			same("Affine", func(k Kernels) []float64 {
				a := slices.Clone(acc)
				k.Affine(a, dots, scale, mins, sums, 0.3, -1.7, 2.9)
				return a
			})
			same("Blend", func(k Kernels) []float64 {
				a := slices.Clone(acc)
				k.Blend(a, mins, 0.3, -1.7)
				return a
			})
			same("Fold", func(k Kernels) []float64 {
				dst := guard.Floats(t, n)
				sum := k.Fold(dst, x, scale, mins)
				return append(widened(dst), sum)
			})
			same("Narrow", func(k Kernels) []float64 {
				dst := guard.Floats(t, n)
				k.Narrow(dst, scale)
				return widened(dst)
			})
			for _, number := range []Number{Float16, BFloat16, Uint8, Uint16} {
				same("Widen", func(k Kernels) []float64 {
					dst := make([]float64, n)
					k.Widen(dst, src[len(src)-n*number.bytes():], number)
					return dst
				})
			}
			for _, columns := range []int{1, 2, 3} {
				same("transpose", func(k Kernels) []float64 {
					dst, in := make([]float64, n*columns), make([]float64, n*columns)
					for i := range in {
						in[i] = float64(i)
					}
					k.transpose(dst, in, n, columns)
					return dst
				})
			}
		}
	}
}

// Every level codes vectors to the same codes, sums, scales and mins, to nearest and
// stochastically, whatever lies between them.
func TestQuantise(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	generic := For(cpu.Generic)
	for seed := range 200 {
		n := []int{1, 8, 31, 32, 64, 72, 128}[r.IntN(7)]
		vectors, gap, ldo, stochastic := r.IntN(4)+1, r.IntN(3), r.IntN(2)+1, r.IntN(2) == 0
		x := guard.Floats(t, vectors*(n+gap)-gap)
		size := math.Exp(r.NormFloat64() * 10)
		for i := range x {
			x[i] = float32(size * r.NormFloat64())
			if seed%5 == 0 { // often the same value, as unseen weights are
				x[i] = float32(r.IntN(2))
			}
		}
		var c coding
		c.resize(vectors, stochastic)
		for v := range vectors {
			c.set(v, quant.Format{Stochastic: stochastic, Seed: uint64(seed)}.Rounding(1, 2, quant.StreamP).At(v))
		}
		element, stride := r.IntN(1<<20), r.IntN(3)+1
		code := func(k Kernels) ([]byte, []affine) {
			codes, out := guard.Bytes(t, len(x)), make([]affine, vectors*ldo)
			k.quantise(c, out, ldo, codes, n+gap, x, n+gap, n, element, stride)
			return codes, out
		}
		wantCodes, want := code(generic)
		for v := range vectors {
			sum := int32(0)
			for _, b := range wantCodes[v*(n+gap):][:n] {
				sum += int32(b)
			}
			if want[v*ldo].sum != sum {
				t.Fatalf("the codes' sum is %d, not %d", sum, want[v*ldo].sum)
			}
		}
		for _, level := range cpu.Levels() {
			if codes, out := code(For(level)); !slices.Equal(codes, wantCodes) || !slices.Equal(out, want) {
				t.Fatalf("%v, seed %d: %d vectors of %d, stochastic %v: codes differ\n%v\n%v\n%v\n%v", level, seed, vectors, n, stochastic, codes, wantCodes, out, want)
			}
		}
		x[r.IntN(n)] = float32(math.NaN())
		for _, level := range cpu.Levels() {
			if _, out := code(For(level)); out[0].scale == out[0].scale || out[0].min == out[0].min {
				t.Fatalf("%v: a NaN is hidden", level)
			}
		}
	}
}

func widened(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
