package vec

import (
	"fmt"
	"math"
)

var minusInf = float32(math.Inf(-1))

// Max is the largest number of x; minus infinity where there is none. NaN is not
// a number.
func (k *Kernels) Max(x []float32) float32 { return k.largest(x) }

// searched is the number of elements that ArgMax looks at twice.
const searched = 4096

// ArgMax is the lowest index of the largest number of x; 0 where nothing exceeds
// minus infinity. NaN is not a number.
func (k *Kernels) ArgMax(x []float32) int {
	best, at := minusInf, 0
	for from := 0; from < len(x); from += searched {
		if m := k.largest(x[from:min(from+searched, len(x))]); m > best {
			best, at = m, from
		}
	}
	if best == minusInf {
		return 0
	}
	return at + k.find(x[at:], best)
}

// Groups is the number of groups that GroupMax makes of n elements: 16 of every
// 256, the last 256 perhaps not full.
func Groups(n int) int { return (n + runSize - 1) / runSize * groupsOfRun }

// GroupMax cuts x into Groups(len(x)) disjoint groups of 16 elements or fewer
// and gives the largest number of each (minus infinity where there is none): of
// the r-th run of 256, group 16r+j is the elements j, j+16, j+32, …. At least n
// elements are as large as the n-th largest of these.
func (k *Kernels) GroupMax(dst, x []float32) {
	if len(dst) < Groups(len(x)) {
		panic(fmt.Sprintf("BUG: %d places for the groups of %d elements", len(dst), len(x)))
	}
	whole := len(x) / runSize * runSize
	k.groupMax(dst, x[:whole])
	if rest := x[whole:]; len(rest) > 0 {
		groupMaxOf(dst[whole/runSize*groupsOfRun:][:groupsOfRun], rest)
	}
}

// AtLeast appends to dst the indices of the elements of x that are floor or more,
// in no particular order; groups is x's GroupMax.
func AtLeast(dst []int32, x, groups []float32, floor float32) []int32 {
	for g, m := range groups[:Groups(len(x))] {
		if !(m >= floor) {
			continue
		}
		from := g / groupsOfRun * runSize
		for i := from + g%groupsOfRun; i < min(from+runSize, len(x)); i += groupsOfRun {
			if x[i] >= floor {
				dst = append(dst, int32(i))
			}
		}
	}
	return dst
}

const (
	runSize     = 256
	groupsOfRun = 16
)

// ExpSum computes dst = exp((x-shift)·factor) for x up to shift and factor > 0,
// both finite, and gives the sum. NaN and results below about 1e-38 are 0. dst
// may be x.
func (k *Kernels) ExpSum(dst, x []float32, shift, factor float32) float64 {
	return k.expSum(dst[:len(x)], x, shift, factor)
}
