package vec

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/terse-llm/terse/internal/cpu"
)

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

// specials are values that kernels must not trip over.
var specials = []float32{0, float32(math.Copysign(0, -1)), 1e-40, -1e-40, 88.8, -88.8, 1e4, -1e4, 3e38, -3e38, inf, -inf, nan}

// lengths are all the tails there are, and some more.
func lengths() []int {
	n := []int{127, 128, 129, 255, 256, 257, 511, 1000, 2048, 8192}
	for i := range 68 {
		n = append(n, i)
	}
	return n
}

// eachLevel runs f for every level above the portable one.
func eachLevel(t *testing.T, f func(t *testing.T, k, twin *Kernels)) {
	for _, l := range cpu.Levels() {
		t.Run(l.String(), func(t *testing.T) { f(t, For(l), For(cpu.Generic)) })
	}
}

// guarded is memory for n numbers that do not lie on a boundary, and a check
// that the numbers around them are as they were.
func guarded(n, offset int) (x []float32, check func(t *testing.T)) {
	const guard = 40
	all := make([]float32, n+2*guard)
	for i := range all {
		all[i] = float32(12345 + i)
	}
	from := guard - offset%8
	x = all[from : from+n : from+n]
	for i := range x {
		x[i] = nan // poison: a kernel must write all of it
	}
	return x, func(t *testing.T) {
		t.Helper()
		for i, v := range all {
			if (i < from || i >= from+n) && v != float32(12345+i) {
				t.Fatalf("n %d, offset %d: number %d beside it was overwritten", n, offset, i-from)
			}
		}
	}
}

func random(seed uint64, n int, spread float64) []float32 {
	r := rand.New(rand.NewPCG(seed, 7))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * spread)
	}
	return x
}

// withSpecials puts special values in places that differ by seed.
func withSpecials(x []float32, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 8))
	for i := range x {
		if r.IntN(4) == 0 {
			x[i] = specials[r.IntN(len(specials))]
		}
	}
	return x
}

func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// near is whether got is want but for a relative error, or next to nothing: of an
// exponential that would be subnormal kernels may make 0.
func near(got, want float32, relative float64) bool {
	if same(got, want) || got == want {
		return true
	}
	return math.Abs(float64(got)-float64(want)) <= relative*math.Abs(float64(want))+1e-35
}
