// Package cuda is the GPU backend's lower half: NVIDIA's driver and cuBLASLt
// reached without cgo, and the kernels that attend on coded pages.
//
// Nothing links against CUDA. [Load] opens libcuda.so.1 when asked and looks up
// every entry point by name; [Driver.Open] starts the one goroutine, locked to
// its thread, that owns a device's context, and [Device.Do] runs work on it. Each
// return code is checked and named. With the build tag nocuda, and on systems
// that NVIDIA's driver does not serve, Load only says so, and the program stays
// static.
//
// The kernels are the .cu and .cuh files of src. What is embedded, kernels.ptx
// (compute_80: the driver compiles it for any later GPU) and kernels.cubin
// (sm_90a), is made from them by build.sh, which writes their hash into the PTX; a
// test compares it. The directory emu runs the same sources on the CPU behind the
// driver's own interface, so that tests cover the kernels where there is no GPU.
//
// docs/cuda.md has the floors, the measurements and what is not built yet.
package cuda
