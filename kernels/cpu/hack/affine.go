package hack

// Affine corrects the integer products of one partition:
//
//	acc[i] += scale[i]·(x·dots[i] + y·sums[i]) + mins[i]·z
//
// for all of acc, every step rounded once, the same at every level.
func (k Kernels) Affine(acc []float64, dots []int32, scale, mins, sums []float64, x, y, z float64) {
	n := len(acc)
	if len(dots) < n || len(scale) < n || len(mins) < n || len(sums) < n {
		panic("BUG: corrections beyond their slices")
	}
	done := k.affine(acc, dots, scale, mins, sums, x, y, z)
	genericAffine(acc[done:], dots[done:], scale[done:], mins[done:], sums[done:], x, y, z)
}

func genericAffine(acc []float64, dots []int32, scale, mins, sums []float64, x, y, z float64) {
	n := len(acc)
	dots, scale, mins, sums = dots[:n], scale[:n], mins[:n], sums[:n]
	for i := range acc { // conversions keep products from being fused with sums
		inner := float64(x*float64(dots[i])) + float64(y*sums[i])
		acc[i] += float64(scale[i]*inner) + float64(mins[i]*z)
	}
}

// Blend computes acc = a·acc + b·x, every step rounded once.
func (k Kernels) Blend(acc, x []float64, a, b float64) {
	x = x[:len(acc)]
	done := k.blend(acc, x, a, b)
	for i := done; i < len(acc); i++ {
		acc[i] = float64(a*acc[i]) + float64(b*x[i])
	}
}
