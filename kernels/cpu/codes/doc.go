// Package codes multiplies with planes of 2-bit codes (docs/formats.md): the
// integer half of attention on an hq cache. Softmax and the floats between the
// two products are package softmax; kernels/cpu drives both.
//
// Work is cut by query vectors (a query head of a row), one, two or four of them
// at a time, and by tiles of up to 256 tokens (four pages): for a tile and one KV
// head,
//
//	for each page:  Products of Q with K's planes     -> dots
//	softmax.Scores, softmax.Weights                   -> p' in u8 and its sums
//	for each page:  WeightedSums of V's planes by p'  -> sums
//	Merge of the sums into the running output
//
// Integers are exact: equal at every level, and for any grouping of vectors and
// pages. The floats of Merge are per element, so that a vector's output depends
// on nothing but its own tiles.
//
// # Floors
//
// One token costs 2·d products for each query vector: 1,024 at d = 128 and four
// query heads of a KV head. VPMADDUBSW and VPDPBUSD do 32 products per 256 bits:
//
//   - AVX2, two VPMADDUBSW a cycle: 16 cycles. But each needs a VPADDW, and each
//     vector of 32 bytes 7 shifts and masks for every 4 vectors, 39 operations on
//     16 products' worth: 20 cycles on four ports (Zen), 26 on three (Intel).
//   - AVX-512-VNNI, one 512-bit VPDPBUSD a cycle (Zen 4): 16 cycles. Unpacking
//     runs on the other ports. Two a cycle (Xeon): 8.
//   - Memory: hq2, symmetric, has 68 bytes a token, d = 128: 5 ns at 13 GB/s.
package codes

//go:generate go run -C ../_asm ./codes -out ../codes/codes_amd64.s -stubs ../codes/codes_amd64.go -pkg codes
