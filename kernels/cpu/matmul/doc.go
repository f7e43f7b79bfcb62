// Package matmul has linear layers with prepacked weights:
// y[r][o] = Σ_k x[r][k]·w[o][k] + bias[o], x and y float32.
//
// Weights are packed into panels of 32 outputs, so that the lanes of a register
// are outputs and no sum is ever taken across lanes. Each dtype keeps its own
// width (a packed matrix is at most 3 % larger than the file's).
//
//   - F32, F16, BF16 are multiplied as float32. An output is one chain of fused
//     multiply-adds over k from zero.
//   - Q8_0, Q4_0, Q4_K, Q5_K, Q6_K: the activations become int8 codes with a
//     float32 scale max|x|/127 per 32, the products within a block are exact
//     integers, and an output is one chain over the blocks:
//     sum += dot·(w's scale · x's scale), then for the K-quants with minima
//     sum -= minimum·Σx.
//
// A tile (see tile) computes the outputs of a panel for a few rows, and a row's
// sums do not depend on the rows beside it nor on how k is cut: one row alone
// and the same row among many have the same bits at one level.
//
// # Layouts
//
// F32 and F16 lie as [k][32], BF16 as [k/2][32][2], which widens by one shift or
// mask; with an odd inner dimension one k of zeros is added.
//
// A block of 32 k in a panel is 8 quads of four k. Codes of a quad lie as
// [32 outputs][4 bytes]:
//
//	Q8_0  [8][32][4] codes (AVX2 and AVX-512: +128), [32] f16 scales d
//	Q4_0  [4][32][4] nibbles, quads 2i low and 2i+1 high; [32] f16 d
//	Q4_K  [32] f16 d, [32] f16 m, then 8 × (nibbles, [32] u8 scales, [32] u8 minima)
//	Q5_K  as Q4_K, with [32][4] fifth bits before the nibbles: bit q of byte j
//	      belongs to code 4q+j
//	Q6_K  [32] f16 d, then 8 × ([2][32][4] upper pairs: pair q%4 of byte j of
//	      half q/4 belongs to code 4q+j; nibbles; [2][32] int8 scales, of 16 k
//	      each)
//
// Where the order within a block is free it is that of use: the processor's
// prefetchers follow one rising stream best.
//
// Activations lie in groups of m rows, as many as the largest tile takes or
// evenly fewer: float32 as [k][m]; int8 as a record of 14·m dwords per block:
// [8][m] quads of codes, then [m] each of the scale s, s·Σ, -128·Σ, -8·Σ,
// -32·Σ of k 0–15, -32·Σ of k 16–31, where Σ sums codes: what makes up for
// weights stored with an offset.
//
// # Floors
//
// One row must read the weights: bytes over memory bandwidth. Many rows are
// bound by arithmetic, a cycle on Zen 4 taking 16 float32 multiply-adds and 64
// int8 ones by vpdpbusd. AVX2 has none for int8: vpmaddubsw on nibbles makes 64,
// eight-bit codes are two nibbles, so 32, and every product costs an addition on
// top. (vpsignb and vpmaddwd, the usual way, share the multiplier's two ports:
// 21.)
//
// arm64 cores with two vector pipes take 8 float32 multiply-adds a cycle and 32
// int8 ones by sdot; without it smull makes 8 or 16, and codes of eight bits need a
// saddlp for every two of them. Nothing is timed on arm64 yet.
package matmul
