package quant

import "math"

// Attention on codes quantises the queries and the weights to 8 bits; that, and
// float32 rounding, is all it differs by from attention over the values that the
// codes stand for (and float32 rounding alone in the dequantising baselines). Each of
// the two errors is at most half a step (a whole one with stochastic rounding)
// times the absolute sum of the other operand.

// QueryBound bounds the error of a query's product with one key (hack: with one
// partition of it; the parts add up), before the softmax scale. queryRange is
// the largest |q| of the row (hq), or max - min of q over the partition (hack;
// hack:v2: of q times the channels' scales). keyNorm is Σ|k| of the dequantised
// key (hack:v2: Σ of its codes) over the same channels.
func (f Format) QueryBound(queryRange, keyNorm float64) float64 {
	switch {
	case f.Dequantised():
		return 0
	case f.Family == FamilyHQ:
		return queryRange / 254 * keyNorm
	}
	return f.halfStep() * queryRange * keyNorm
}

// WeightBound bounds the error of one channel of Σ w·v over one tile (hack: one
// block of Partition tokens), where w are the tile's weights, 1 at most.
// weightRange is the largest w·s over the tokens, s being the step of the top
// plane (hq), or max - min of w (hack; hack:v2: of w times the tokens' scales).
// valueNorm is, for the channel, Σ|v - centre|/s (hq), Σ|v| of the dequantised
// values (hack) or Σ of the codes (hack:v2).
func (f Format) WeightBound(weightRange, valueNorm float64) float64 {
	if f.Dequantised() {
		return 0
	}
	return f.halfStep() * weightRange * valueNorm
}

// halfStep is the largest rounding error of 8-bit codes as part of their range.
func (f Format) halfStep() float64 {
	if f.Stochastic {
		return 1. / 255
	}
	return 1. / 510
}

// OutputBound bounds one channel of the attention output: every scaled score is
// off by at most scoreError, Σ w·v over all tiles, over the sum of the weights,
// by weightError, and |v| is at most reach. A weight then changes by a factor
// within e^±scoreError, and so does their sum.
func OutputBound(scoreError, weightError, reach float64) float64 {
	return math.Expm1(2*scoreError)*reach + math.Exp(2*scoreError)*weightError
}
