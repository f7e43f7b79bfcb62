package cuda

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
	kernelscpu "github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/quant"
)

// fused is the Rotator whose products with matrices are fused and summed in order, as
// the kernels' and those of processors that have the instruction.
type fused struct{ quant.Plain }

func (fused) Map(x []float32, heads, d int, m []float32) {
	group := heads / (len(m) / (d * d))
	y := make([]float32, d)
	for i := 0; i < len(x); i += d {
		clear(y)
		for in, v := range x[i : i+d] {
			at := (i/d%heads/group*d + in) * d
			for out, w := range m[at : at+d] {
				y[out] = mulAdd(v, w, y[out])
			}
		}
		copy(x[i:], y)
	}
}

// mulAdd is a·b + c rounded once: the float64 sum, whose last bit says whether
// there was more, rounds to the nearest float32.
func mulAdd(a, b, c float32) float32 {
	p, z := float64(a)*float64(b), float64(c)
	sum := p + z
	part := sum - p
	rest := (p - (sum - part)) + (z - part)
	bits := math.Float64bits(sum)
	if math.IsNaN(rest) || rest == 0 || bits&1 == 1 {
		return float32(sum)
	}
	if (rest > 0) == (sum > 0) {
		return float32(math.Float64frombits(bits + 1))
	}
	return float32(math.Float64frombits(bits - 1))
}

// Processors with fused multiply-adds take vectors into a balanced basis as the kernels
// do, to the bit.
func TestFused(t *testing.T) {
	levels := cpu.Levels()
	r := rand.New(rand.NewPCG(6, 9))
	for _, level := range levels {
		if level == cpu.Generic {
			continue
		}
		ops := kernelscpu.New(1, level)
		for _, dim := range []int{64, 128} {
			const rows, heads, kv = 21, 6, 2
			m := someBasis(r, kv, dim)
			want := hardRows(r, rows*heads, dim)
			got := slices.Clone(want)
			fused{}.Map(want, heads, dim, m)
			ops.Map(got, heads, dim, m)
			for i := range got {
				if g, w := got[i], want[i]; g != w && (g == g || w == w) {
					t.Fatalf("%v, dim %d: number %d is %g, want %g", level, dim, i, g, w)
				}
			}
		}
		ops.Close()
	}
}
