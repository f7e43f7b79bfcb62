package calibrate

import (
	"cmp"
	"math"
	"slices"
)

// Directions that queries hardly use, or keys, would make a basis that rounding
// errors do not survive: they count as if they were a little used.
const (
	leastQuery = 1e-4 // of the mean of the query's second moments
	leastKey   = 1e-6 // of the largest variance in the basis
)

// basis sets a, [out][in], to the balanced basis of a head of d channels: with Q's
// second moments qq and K's covariance kk, S = qq^½ and S·kk·S = U·Λ·U', it is
// Λ^-¼·U'·S. K' = a·k and q' = a^-T·q have the scores of k and q and one
// covariance, Λ^½, falling. Of all bases it has the least product of the traces,
// which is the error of the scores where a rotated uniform code takes k': basis
// returns its share of the product in the basis that was. qq and kk are used up.
func basis(a []float32, qq, kk []float64, d int) (left float64) {
	before := trace(qq, d) * trace(kk, d)
	if !(before > 0) { // nothing was asked, or nothing was there: any basis will do
		for i := range d {
			a[i*d+i] = 1
		}
		return 1
	}
	values, vectors := eigen(qq, d)
	mean := 0.0
	for _, v := range values {
		mean += v / float64(d)
	}
	root := make([]float64, d*d) // S
	for k, v := range values {
		r := math.Sqrt(max(v, leastQuery*mean))
		for i := range d {
			for j := range d {
				root[i*d+j] += vectors[i*d+k] * r * vectors[j*d+k]
			}
		}
	}
	values, vectors = eigen(product(product(root, kk, d), root, d), d)
	order := falling(values)
	top := values[order[0]]
	after := 0.0
	for out, k := range order {
		v := max(values[k], leastKey*top)
		after += math.Sqrt(v)
		for in := range d {
			sum := 0.0
			for i := range d {
				sum += vectors[i*d+k] * root[i*d+in]
			}
			a[out*d+in] = float32(sum / math.Sqrt(math.Sqrt(v)))
		}
	}
	return after * after / before
}

// falling are the indices of values, the largest first.
func falling(values []float64) []int {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(values[j], values[i]) })
	return order
}

func trace(a []float64, d int) (sum float64) {
	for i := range d {
		sum += a[i*d+i]
	}
	return sum
}

func product(a, b []float64, d int) []float64 {
	c := make([]float64, d*d)
	for i := range d {
		for k := range d {
			f := a[i*d+k]
			for j := range d {
				c[i*d+j] += f * b[k*d+j]
			}
		}
	}
	return c
}

// eigen gives the eigenvalues of a symmetric matrix and its eigenvectors, which are
// the columns of vectors, by Jacobi's rotations. a is used up.
func eigen(a []float64, d int) (values, vectors []float64) {
	vectors = make([]float64, d*d)
	for i := range d {
		vectors[i*d+i] = 1
	}
	for range 30 { // sweeps; ten are enough for any d here
		off, all := 0.0, 0.0
		for i := range d {
			for j := range d {
				if all += a[i*d+j] * a[i*d+j]; i != j {
					off += a[i*d+j] * a[i*d+j]
				}
			}
		}
		if off <= 1e-26*all {
			break
		}
		for p := range d {
			for q := p + 1; q < d; q++ {
				rotate(a, vectors, d, p, q)
			}
		}
	}
	values = make([]float64, d)
	for i := range d {
		values[i] = a[i*d+i]
	}
	return values, vectors
}

// rotate makes a[p][q] zero.
func rotate(a, vectors []float64, d, p, q int) {
	x := a[p*d+q]
	if x == 0 {
		return
	}
	theta := (a[q*d+q] - a[p*d+p]) / (2 * x)
	t := math.Copysign(1/(math.Abs(theta)+math.Sqrt(theta*theta+1)), theta)
	c := 1 / math.Sqrt(t*t+1)
	s := t * c
	for k := range d {
		u, v := a[k*d+p], a[k*d+q]
		a[k*d+p], a[k*d+q] = c*u-s*v, s*u+c*v
	}
	for k := range d {
		u, v := a[p*d+k], a[q*d+k]
		a[p*d+k], a[q*d+k] = c*u-s*v, s*u+c*v
		u, v = vectors[k*d+p], vectors[k*d+q]
		vectors[k*d+p], vectors[k*d+q] = c*u-s*v, s*u+c*v
	}
}
