// Package hack computes attention on the pages of the hack formats
// (docs/formats.md, "hack pages" and "The homomorphic product"): the baselines of
// arXiv 2502.03589, both layouts, 2, 4 or 8 bits.
//
// Kernels is the integer part: products of 8-bit unsigned queries (weights) with
// planes of 2-bit codes of K (V), per partition. They are exact, and so the same at
// every level, and so are the 8-bit coding of queries and weights, with the streams
// of stochastic rounding, and the corrections by the sums of codes. Attender is the
// whole of it. Weights are coded relative to the largest score so far, not the
// tile's: codes are of a range, whatever its unit.
//
// Lanes are tokens in K and channels in V, so that nothing is summed across lanes.
// Floor of the integer part for 4 query heads of d channels, per token and KV head:
// 8·d products of bytes per plane; d = 128: 32 fused adds of 32 products (AVX2: 32
// vpmaddubsw and 32 vpaddw, two a cycle), or 16 vpdpbusd at 512 bits, one a cycle.
package hack
