// Package codes multiplies with planes of 2-bit codes (docs/formats.md): the
// integer half of attention on an hq cache. Softmax and the floats between the
// two products are package softmax; kernels/cpu drives both.
//
// Work is cut by query vectors (a query head of a row), one, two or four of them
// at a time, and by tiles of up to 256 tokens (four pages): for a tile and one KV
// head,
//
//	PageProducts of Q with K's planes              -> dots
//	softmax.Scores, WeighBy, Quantise              -> p' in u8 and its sums
//	PageSums of V's planes, weighted by p'         -> sums
//	Merge of the sums into the running output
//
// Passes over planes fetch meanwhile what the next one reads (Ahead): without that,
// half of a decode step waits for memory.
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
//   - NEON, two SDOT or UDOT of 128 bits a cycle where there are (Neoverse): 32
//     cycles, 14 of unpacking beside them; else two multiplications of 8 bytes a
//     cycle: 64. Tested under emulation, not timed yet.
//   - Memory: hq2, symmetric, has 68 bytes a token, d = 128: 5 ns at 13 GB/s.
//
// Measured at 3.7 GHz on Zen 4, one thread, nanoseconds a token and KV head, four
// query heads, d = 128: products and sums 3.0 and 3.2 with AVX2 (11.3 and 11.8
// cycles of 9.75), 2.34 and 2.31 with AVX-512 (8.6 and 8.5 of 8). With the softmax a
// tile takes 9.2 and 6.7, and from memory in huge pages 10 to 11.5 and 7.3 to 8.1.
// Giving VPMADDUBSW a share of AVX-512's products was tried, and is slower: they
// compete for the same ports.
package codes

//go:generate go run -C ../_asm ./codes -out ../codes/codes_amd64.s -stubs ../codes/codes_amd64.go -pkg codes
//go:generate go run -C ../_asm ./neon/codes -out ../codes/codes_arm64.s -stubs ../codes/codes_arm64.go -pkg codes
