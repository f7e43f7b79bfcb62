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
	round := quant.Format{}.Rounding(0, 0, quant.StreamQ)
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
			same("quantise", func(k Kernels) []float64 {
				codes := guard.Bytes(t, n)
				a := k.quantise(codes, x, round, false, 0, 1)
				out := []float64{float64(a.scale), float64(a.min), float64(a.sum)}
				for _, c := range codes {
					out = append(out, float64(c))
				}
				return out
			})
			x[r.IntN(n)] = float32(math.NaN())
			if lo, hi := k.extremes(x); lo == lo || hi == hi {
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
