// Package cudatest gives tests GPUs: emulated ones, built from
// kernels/cuda/emu, whose library is NVIDIA's driver and cuBLASLt to the loader.
package cudatest
