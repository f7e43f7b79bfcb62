// Command shapes writes a model of random weights in the shape of a known one, for
// benchmarks:
//
//	go run ./internal/shapes -shape llama-3.2-1b -type q8_0 -out model.gguf
package main
