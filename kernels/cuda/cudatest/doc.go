// Package cudatest gives tests a GPU: an emulated one, built from
// kernels/cuda/emu, whose library is NVIDIA's driver and cuBLASLt to the loader.
package cudatest
