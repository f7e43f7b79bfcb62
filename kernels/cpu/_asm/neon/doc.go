// Package neon writes Go assembly for arm64: generators call a method for every
// instruction. What Go's assembler has no name for is written as its word, with
// the manual's notation beside it. Registers are chosen by hand: there are 32
// vector registers, V0 to V31, and R0 to R17 and R19 to R26.
package neon
