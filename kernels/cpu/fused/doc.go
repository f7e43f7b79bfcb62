// Package fused is the best dequantising attention that we can make: the control
// that attention on codes is measured against, on the same tiling (pages of 64
// tokens, one KV head after the other) and with the same sharing of a page by the
// query heads of a KV head. Codes of 4 bits (scale and zero) or 8 (scale) per token
// and group of 64 channels are widened to float32 in registers and multiplied there;
// nothing is written back. The formats int8, int4 and cachegen are attended with it, and
// with kernels of their own ([KIVI]) kivi's pages of 2 bits.
//
// What it does to be quick:
//
//   - Lanes are tokens in K and channels in V, so that nothing is summed across lanes.
//   - A nibble is taken out by one mask and one conversion: it is not shifted down,
//     but its float is 256^m times the code, and the query (in V the sum, at the end)
//     is divided by that, which is exact.
//   - In K, scale and zero come after a group's 64 products, one multiply-add per
//     lane; in V the scale is in the weight and the zero is one number per group.
//   - In pages of kivi two bits choose one of four numbers (VPERMILPS): in K the codes
//     themselves, the channels' scales being in the query, of each block anew, and the
//     mins one number per block; in V the values of a token's part.
//   - The other half's page, then the next page, is fetched meanwhile.
//
// Floor of decoding d channels for 4 query heads, per token and KV head: 8·d
// multiply-adds as in package exact (d = 128: 21 ns at 48 G a second), and from
// memory d + d/8 bytes (4 bits; 7.6 ns at 19 GB/s) or 2·d + d/16 (8 bits; 14 ns):
// bound by arithmetic, at 4 query heads.
package fused
