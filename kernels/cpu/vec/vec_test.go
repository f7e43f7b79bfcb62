package vec

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

func TestRMSNorm(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, twin *Kernels) {
		for _, n := range lengths() {
			if n == 0 {
				continue
			}
			x, weight := random(uint64(n), 3*n, 2), random(1, n, 1)
			x[n-1] = 1e4 // an outlier
			want := make([]float32, 3*n)
			twin.RMSNorm(want, x, weight, 1e-5)
			dst, check := guarded(3*n, n)
			k.RMSNorm(dst, x, weight, 1e-5)
			check(t)
			for i := range dst {
				if !near(dst[i], want[i], 3e-7) {
					t.Fatalf("n %d: %g at %d, want %g", n, dst[i], i, want[i])
				}
			}
			alone := slices.Clone(x[n : 2*n])
			k.RMSNorm(alone, alone, weight, 1e-5)
			if !slices.Equal(alone, dst[n:2*n]) {
				t.Fatalf("n %d: a row alone and in place is not what it is between others", n)
			}
		}
		row := []float32{0, 0, 0}
		k.RMSNorm(row, row, []float32{1, 1, 1}, 1e-5)
		if !slices.Equal(row, []float32{0, 0, 0}) {
			t.Errorf("the norm of zeros is %v", row)
		}
	})
}

func TestRoPE(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, twin *Kernels) {
		for _, pairs := range lengths() {
			for _, interleaved := range []bool{false, true} {
				for _, more := range []int{0, 3} { // channels that stay
					const heads = 3
					headDim := 2*pairs + more
					cos, sin := random(3, pairs, 1), random(4, pairs, 1)
					x, check := guarded(heads*headDim, pairs)
					copy(x, random(uint64(pairs), heads*headDim, 1))
					want := slices.Clone(x)
					twin.RoPE(want, heads, headDim, cos, sin, interleaved)
					k.RoPE(x, heads, headDim, cos, sin, interleaved)
					check(t)
					for i := range x {
						if math.Abs(float64(x[i]-want[i])) > 2e-6 {
							t.Fatalf("%d pairs, interleaved %v: %g at %d, want %g", pairs, interleaved, x[i], i, want[i])
						}
						if c := i % headDim; c >= 2*pairs && x[i] != want[i] {
							t.Fatalf("%d pairs, interleaved %v: channel %d was to stay", pairs, interleaved, c)
						}
					}
				}
			}
		}
	})
}

func TestSwiGLU(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, twin *Kernels) {
		for _, n := range lengths() {
			for _, spread := range []float64{0.01, 1, 30} {
				up := random(2, n, 1)
				gate, check := guarded(n, n)
				copy(gate, withSpecials(random(uint64(n), n, spread), uint64(n)))
				from, want := slices.Clone(gate), slices.Clone(gate)
				twin.SwiGLU(want, up)
				k.SwiGLU(gate, up)
				check(t)
				for i := range gate {
					if !near(gate[i], want[i], 1e-6) {
						t.Fatalf("n %d: SwiGLU(%g, %g) = %g, want %g", n, from[i], up[i], gate[i], want[i])
					}
				}
			}
		}
	})
}

// However a row is cut among cores, its elements stay the same.
func TestPieces(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, _ *Kernels) {
		const n = 200
		gate, up := withSpecials(random(1, n, 3), 1), random(2, n, 1)
		whole, exps := slices.Clone(gate), make([]float32, n)
		k.SwiGLU(whole, up)
		k.ExpSum(exps, up, 9, 1)
		for cut := range n {
			pieces, parts := slices.Clone(gate), make([]float32, n)
			k.SwiGLU(pieces[:cut], up)
			k.SwiGLU(pieces[cut:], up[cut:])
			k.ExpSum(parts, up[:cut], 9, 1)
			k.ExpSum(parts[cut:], up[cut:], 9, 1)
			if i := firstDifference(pieces, whole); i >= 0 {
				t.Fatalf("cut at %d, SwiGLU gives %g at %d, else %g", cut, pieces[i], i, whole[i])
			}
			if i := firstDifference(parts, exps); i >= 0 {
				t.Fatalf("cut at %d, ExpSum gives %g at %d, else %g", cut, parts[i], i, exps[i])
			}
		}
	})
}

func TestAdd(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, _ *Kernels) {
		for _, n := range lengths() {
			for _, runs := range []int{1, 3} {
				y := withSpecials(random(1, n, 1), 1)
				x, check := guarded(runs*n, n)
				copy(x, withSpecials(random(2, runs*n, 1), 2))
				want := slices.Clone(x)
				if n > 0 {
					quant.Plain{}.Add(want, y)
				}
				k.Add(x, y)
				check(t)
				if i := firstDifference(x, want); i >= 0 {
					t.Fatalf("n %d, %d runs: %g at %d, want %g", n, runs, x[i], i, want[i])
				}
			}
		}
	})
}

func firstDifference(a, b []float32) int {
	for i := range a {
		if !same(a[i], b[i]) {
			return i
		}
	}
	return -1
}

// The basis of the cache is the same on every machine, bit for bit.
func TestRotate(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, _ *Kernels) {
		for _, d := range []int{8, 16, 24, 32, 40, 64, 72, 80, 96, 120, 128, 160, 192, 256, 504, 512, 20} {
			r := rotationOf(d)
			for _, heads := range []int{0, 1, 5} {
				for _, inverse := range []bool{false, true} {
					x, check := guarded(heads*d, d/8)
					copy(x, random(uint64(d), heads*d, 3))
					if heads == 5 {
						withSpecials(x[d:2*d], uint64(d))
					}
					want := slices.Clone(x)
					quant.Plain{}.Rotate(want, r, inverse)
					k.Rotate(x, r, inverse)
					check(t)
					if i := firstDifference(x, want); i >= 0 {
						t.Fatalf("d %d, %d heads, inverse %v: %g at %d, want %g", d, heads, inverse, x[i], i, want[i])
					}
				}
			}
		}
	})
}

func rotationOf(d int) *quant.Rotation {
	r := &quant.Rotation{Signs: make([]float32, d)}
	for c := range r.Signs {
		r.Signs[c] = 1 - 2*float32(c*c/3%2)
	}
	for bit := 1 << 20; bit > 0; bit >>= 1 {
		if d&bit != 0 {
			r.Blocks = append(r.Blocks, bit)
		}
	}
	return r
}

func TestWiden(t *testing.T) {
	eachLevel(t, func(t *testing.T, k, twin *Kernels) {
		all := make([]byte, 2<<16)
		for i := range 1 << 16 {
			binary.LittleEndian.PutUint16(all[2*i:], uint16(i))
		}
		for _, dt := range []tensor.DType{tensor.F16, tensor.BF16} {
			for from := 0; from < 1<<16; {
				n := min(from%521, 1<<16-from)
				src := all[2*from : 2*(from+n) : 2*(from+n)]
				want := make([]float32, n)
				twin.Widen(want, dt, src)
				dst, check := guarded(n, n)
				k.Widen(dst, dt, src)
				check(t)
				if i := firstDifference(dst, want); i >= 0 {
					t.Fatalf("%v %#x is %g, want %g", dt, from+i, dst[i], want[i])
				}
				from += max(n, 1)
			}
		}
		dst := make([]float32, 2)
		k.Widen(dst, tensor.F32, []byte{0, 0, 128, 63, 0, 0, 0, 64})
		if dst[0] != 1 || dst[1] != 2 {
			t.Errorf("float32 1 and 2 are widened to %v", dst)
		}
	})
}

func BenchmarkRows(b *testing.B) {
	bench := func(name string, bytes int, f func(k *Kernels)) {
		for _, l := range cpu.Levels() {
			k := For(l)
			b.Run(fmt.Sprintf("%s/%v", name, l), func(b *testing.B) {
				b.SetBytes(int64(bytes))
				b.ReportAllocs()
				for b.Loop() {
					f(k)
				}
			})
		}
	}
	x, y, w := random(1, 8192, 1), random(2, 8192, 1), random(3, 8192, 1)
	bench("rmsnorm-2048", 3*4*2048, func(k *Kernels) { k.RMSNorm(y[:2048], x[:2048], w[:2048], 1e-5) })
	bench("rope-40x64", 2*4*40*64, func(k *Kernels) { k.RoPE(x[:40*64], 40, 64, w[:32], y[:32], false) })
	bench("rope-pairs-40x64", 2*4*40*64, func(k *Kernels) { k.RoPE(x[:40*64], 40, 64, w[:32], y[:32], true) })
	gate := random(4, 8192, 1)
	bench("swiglu-8192", 3*4*8192, func(k *Kernels) {
		copy(gate, x) // the same values every time
		k.SwiGLU(gate, y)
	})
	bench("add-2048", 3*4*2048, func(k *Kernels) { k.Add(x[:2048], w[:2048]) })
	for _, d := range []int{64, 80, 128, 256} {
		r := rotationOf(d)
		bench(fmt.Sprintf("rotate-32x%d", d), 2*4*32*d, func(k *Kernels) { k.Rotate(y[:32*d], r, false) })
	}
	src := make([]byte, 2*8192)
	bench("widen-f16-8192", 6*8192, func(k *Kernels) { k.Widen(y, tensor.F16, src) })
	bench("widen-bf16-8192", 6*8192, func(k *Kernels) { k.Widen(y, tensor.BF16, src) })
}
