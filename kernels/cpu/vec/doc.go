// Package vec has the elementwise kernels and the searches through long vectors
// that a transformer and its sampler need, for every level of instructions: norm,
// rotary embedding, SwiGLU, sums, the rotation of the KV cache's basis, widening,
// arg max and exponentials. amd64's are assembly made by _asm/vec, arm64's by
// _asm/neon/vec.
//
// All run on the calling goroutine, allocate nothing and take slices of any
// length and alignment. A result depends on its own row alone. Levels differ by
// rounding, except that Rotate and Add give quant.Plain's bits and that the
// searches are exact.
//
// The floor is memory's: all but SwiGLU and ExpSum do at most three operations
// for every 12 bytes that they move. The exponential is 15 operations, and a
// division in SwiGLU, for every vector.
package vec

//go:generate go run -C ../_asm ./vec -out ../vec/vec_amd64.s -stubs ../vec/vec_amd64.go -pkg vec
//go:generate go run -C ../_asm ./neon/vec -out ../vec/vec_arm64.s -stubs ../vec/vec_arm64.go -pkg vec
