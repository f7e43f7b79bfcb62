// Package cpu computes kernels.Ops on the processor, with assembly where the
// level of the machine (internal/cpu) has some and portable Go elsewhere. The
// arithmetic is in the packages below it, which know nothing of each other:
//
//	matmul   prepared weight matrices and products with them
//	codes    integer products with planes of 2-bit codes (hq)
//	softmax  scores to weights
//	exact    attention on float16 rows
//	fused    attention on int4 and int8 that dequantises in registers (baselines)
//	hack     attention on the hack layouts
//	encode   coding of pages, and storing of exact ones
//	vec      norms, rotary embedding, activations, sums
//
// This package puts them together: it cuts work into pieces for the cores
// ([Ops.Parallel]: a few goroutines for the life of the backend, none per piece),
// runs the online softmax over a sequence's tiles, and keeps the scratch memory,
// so that a decode step allocates nothing.
//
// # Attention
//
// A vector (query head of a row) goes over its tokens in spans of 2,048, aligned
// to positions, and in tiles within them: up to four coded pages that lie in one
// block of 256 positions, or one exact page. Spans are folded into the total in
// order. All of this depends on positions only, so that a vector's output is the
// same bits whether its spans run on one core or many, in decode or in prefill.
package cpu
