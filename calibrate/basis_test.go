package calibrate

import (
	"math"
	"math/rand/v2"
	"testing"
)

// covariance is one of d channels of very different sizes, mixed.
func covariance(r *rand.Rand, d int, spread float64) []float64 {
	c := make([]float64, d*d)
	for range 2 * d {
		x := make([]float64, d)
		for i := range x {
			x[i] = r.NormFloat64() * math.Pow(spread, -float64(i)/float64(d))
		}
		for i := range d {
			for j := range d {
				c[i*d+j] += x[i] * x[j]
			}
		}
	}
	return c
}

// around is a·c·a'.
func around(a, c []float64, d int) []float64 {
	t := make([]float64, d*d)
	for i := range d {
		for j := range d {
			t[j*d+i] = a[i*d+j]
		}
	}
	return product(product(a, c, d), t, d)
}

// In the balanced basis Q and K have one diagonal covariance, falling, and the
// product of the traces is what basis says.
func TestBasis(t *testing.T) {
	for _, d := range []int{2, 16, 64, 80} {
		r := rand.New(rand.NewPCG(uint64(d), 1))
		qq, kk := covariance(r, d, 100), covariance(r, d, 10)
		before := trace(qq, d) * trace(kk, d)
		small := make([]float32, d*d)
		left := basis(small, append([]float64(nil), qq...), append([]float64(nil), kk...), d)
		a, identity := make([]float64, d*d), make([]float64, d*d)
		for i, x := range small {
			a[i] = float64(x)
		}
		k := around(a, kk, d)
		// qq in the basis is a^-T·qq·a^-1, which is k exactly if a'·k·a is qq.
		for i := range d {
			for j := range d {
				identity[j*d+i] = a[i*d+j]
			}
		}
		q := around(identity, k, d)
		size := trace(qq, d)
		for i := range q {
			if math.Abs(q[i]-qq[i]) > 1e-4*size {
				t.Fatalf("d%d: element %d of the queries' moments is %g, want %g", d, i, q[i], qq[i])
			}
		}
		for i := range d {
			if i > 0 && k[i*d+i] > k[(i-1)*d+i-1]*1.0001 {
				t.Errorf("d%d: the variance of channel %d is %g, of the one before %g", d, i, k[i*d+i], k[(i-1)*d+i-1])
			}
			for j := range d {
				if i != j && math.Abs(k[i*d+j]) > 1e-4*k[0] {
					t.Fatalf("d%d: channels %d and %d have covariance %g", d, i, j, k[i*d+j])
				}
			}
		}
		if got := trace(k, d) * trace(k, d) / before; math.Abs(got-left) > 1e-3*left || left >= 1 {
			t.Errorf("d%d: %.5f of the product of the traces is left, said to be %.5f", d, got, left)
		}
	}
}

// What is never used leaves a basis that can be undone.
func TestBasisOfNothing(t *testing.T) {
	const d = 16
	for _, zero := range []string{"q", "k", "both"} {
		qq, kk := make([]float64, d*d), make([]float64, d*d)
		for i := range 3 {
			if zero == "k" {
				qq[i*d+i] = 1
			}
			if zero == "q" {
				kk[i*d+i] = 1
			}
		}
		a := make([]float32, d*d)
		basis(a, qq, kk, d)
		for i, x := range a {
			if math.IsNaN(float64(x)) || math.Abs(float64(x)) > 65504 {
				t.Fatalf("without %s: element %d is %g", zero, i, x)
			}
		}
	}
}
