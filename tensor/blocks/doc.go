// Package blocks turns rows of a tensor's bytes, plain or block-quantised, into
// float32 and back. The block formats are those of GGUF files:
//
//	Q8_0  32 values: scale d f16, 32 int8 q               d·q
//	Q4_0  32 values: scale d f16, 32 nibbles q             d·(q-8)
//	Q4_K 256 values: d, m f16, 8 scales and 8 minima       d·s·q - m·μ
//	      of 6 bits packed in 12 bytes, 256 nibbles q
//	Q5_K 256 values: as Q4_K with a fifth bit of q in      d·s·q - m·μ
//	      32 bytes of their own
//	Q6_K 256 values: 4 low bits, 2 high bits, 16 int8      d·s·(q-32)
//	      scales, d f16
//
// Reading gives the nearest float32 to these formulas. Writing is plain rounding
// to nearest without a search for better scales: enough for tests and tools,
// not a replacement for a quantiser.
package blocks
