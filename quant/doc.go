// Package quant owns the KV cache's number formats and is the truth about
// them: which keys a query reads exactly and which as codes ([Format]), how a
// page lies in memory ([Geometry]), what a page's codes are (Encode), the
// homomorphic product in plain Go, and what it costs in error.
//
// One byte layout serves wire, cache and compute, on every backend: a
// [View] (pages, lengths, geometry) is the whole contract between kvcache,
// attention, kernels and transfer.
//
// # Two kinds of page
//
// A logical page is PageTokens consecutive tokens of one sequence over all
// layers. It can exist as an exact page (K and V in float16) and as a coded
// page (codes, scales, zeros), or as both while queries of both kinds still
// come. K and V are stored in the cache's basis: after RoPE, mean removed and
// rotated where the format says so ([Transform]); attention runs in that basis
// and only its output is turned back.
//
// # Which is read
//
// A query that has n tokens up to and with itself reads key j exactly where
// j < Sinks or j >= ExactFrom(n), and as a code otherwise: the same rule in
// prefill, in any chunking, in replay and in decode. Pages reused from the
// prefix index have no exact form beyond the sinks, and are read as codes.
//
// Formats and formulas: the project's docs/formats.md; HACK: arXiv 2502.03589.
package quant
