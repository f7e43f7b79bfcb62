// Package encode stores K and V in exact pages and codes pages of hq formats,
// for every level of instructions: the bytes are those of quant.Geometry's
// PutExact and Encode, which docs/formats.md defines and which remain the truth.
// Of the other formats quant is lent vectors for widening, ranges and levels (on
// amd64), with which it codes them to the same bits; everything is quant's plain Go at the
// generic level. amd64's kernels are assembly made by _asm/encode, arm64's
// by _asm/neon/encode.
//
// An error of a candidate scale is a sum in channel order without fused steps.
// To keep its bits the lanes of a vector are tokens: 16 rows are transposed once
// and every lane goes through its channels in order.
//
// The floor is arithmetic's: 10 operations for each value and each of 5
// candidates, and about 15 to transpose, code and pack it. At 8 values an
// instruction and 3 instructions a cycle these are 2.7 cycles a value, 2,800
// cycles for K and V of a token and layer with 8 KV heads of 64 channels.
package encode

//go:generate go run -C ../_asm ./encode -out ../encode/encode_amd64.s -stubs ../encode/encode_amd64.go -pkg encode
//go:generate go run -C ../_asm ./neon/encode -out ../encode/encode_arm64.s -stubs ../encode/encode_arm64.go -pkg encode
