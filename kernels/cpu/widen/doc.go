// Package widen turns pages of the baselines that are dequantised before they are
// attended to (kvquant; kivi with 4 bits, and where package fused has no kernels for it)
// into float32 rows, a page's half at a time, which stays in the
// cache until the exact kernels have multiplied with it. package quant/baseline says
// what the values are; the vectors here give its bits, each step rounded once.
//
// What it does to be quick:
//
//   - A word of K is 16 channels of one token: one broadcast, and a shift by another
//     number of bits in every lane, bring 16 codes out; scale and min of the channels
//     stay in registers for eight tokens.
//   - A word of V is four tokens and four channels. Of 2-bit codes it is the two bits
//     themselves that choose one of four values in VPERMILPS: a shift and a choice
//     make eight values.
//   - Parameters are widened from float16 where they are used.
//   - What is read next is fetched meanwhile.
//
// Floor of a page of 64 tokens of d channels at 256 bits: d·64/8 vectors of each
// half, six operations each in K and two in V, and one store; at d = 128 and two
// operations a cycle 3072 + 1024 cycles, which attention for 4 query heads exceeds
// with its 8192 multiply-adds at two a cycle: 4096 cycles. Memory is no bound (9 ns a
// token at 19 GB/s, of more than 30).
package widen
