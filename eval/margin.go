package eval

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Margin is half the width of a 95 % interval around each of a Divergence's
// figures. Neighbouring positions of a text err together, so that the unit of
// resampling is a block of consecutive positions, not one position. Intervals say
// what other text of the same kind would have given.
type Margin struct {
	LogPerplexity float64
	Loss          float64
	KL, KLp99     float64
	Top1          float64
}

const (
	// blockPositions is the length of a block: some sentences.
	blockPositions = 128
	// resamples is enough for two digits of a standard error.
	resamples = 200
	// z95 is the normal distribution's two-sided 95 % point.
	z95 = 1.959964
)

// meanMargin is half the 95 % interval of the mean of values in the order of
// their positions, from the spread of their blocks' means. Where there are fewer
// than two blocks nothing bounds it, and the margin is the values' range.
func meanMargin(values []float64) float64 {
	var means []float64
	for block := range slices.Chunk(values, blockPositions) {
		if len(block) == blockPositions {
			means = append(means, mean(block))
		}
	}
	if len(means) < 2 {
		return slices.Max(values) - slices.Min(values)
	}
	return z95 * deviation(means) / math.Sqrt(float64(len(means)))
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// deviation is the sample standard deviation.
func deviation(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	m, sum := mean(values), 0.0
	for _, v := range values {
		sum += (v - m) * (v - m)
	}
	return math.Sqrt(sum / float64(len(values)-1))
}

// tailMargin is half the 95 % interval of the 99th percentile, by resampling
// blocks with a fixed seed.
func tailMargin(values []float64) float64 {
	blocks := slices.Collect(slices.Chunk(values, blockPositions))
	rng := rand.New(rand.NewPCG(1, uint64(len(values))))
	tails := make([]float64, resamples)
	drawn := make([]float64, 0, len(values)+blockPositions)
	for i := range tails {
		drawn = drawn[:0]
		for range blocks {
			drawn = append(drawn, blocks[rng.IntN(len(blocks))]...)
		}
		slices.Sort(drawn)
		tails[i] = percentile99(drawn)
	}
	return z95 * deviation(tails)
}

// percentile99 is the 99th percentile of sorted values.
func percentile99(sorted []float64) float64 {
	return sorted[min(len(sorted)-1, len(sorted)*99/100)]
}

// wilson is the 95 % interval of a share of which right of n cases are known
// (Wilson 1927), which stays within 0 to 1 and has a width where none or all are
// right.
func wilson(right, n int) (lo, hi float64) {
	k, p := float64(n), float64(right)/float64(n)
	centre := (p + z95*z95/(2*k)) / (1 + z95*z95/k)
	half := z95 / (1 + z95*z95/k) * math.Sqrt(p*(1-p)/k+z95*z95/(4*k*k))
	return max(0, centre-half), min(1, centre+half)
}
