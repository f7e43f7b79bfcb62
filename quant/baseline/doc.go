// Package baseline turns coded pages of the dequantising baselines (int8, int4,
// kivi, cachegen, kvquant) back into float32 rows, for attention to multiply with: what those
// formats' authors do, and what ours exist to avoid. No other format may be
// widened, and only the processor's backends import this package
// (internal/house checks).
package baseline
