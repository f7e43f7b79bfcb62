// Package peak measures what a machine can do at most, so that benchmarks can
// print a kernel's time beside its floor: the rates of the multiply-add
// instructions that the kernels are made of, on registers alone, and the rate at
// which memory can be read.
//
//go:generate go run -C ../_asm ./peak -out ../peak/peak_amd64.s -stubs ../peak/peak_amd64.go -pkg peak
package peak
