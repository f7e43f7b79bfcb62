// NVIDIA's driver interface over some emulated GPUs, as far as package cuda calls
// it. Work is done one piece at a time, when streams.h says. Every allocation ends
// at a page that cannot be touched, so that a kernel that runs past one stops there.
// Copies to and from another GPU's memory than the thread's fail.
#include <cstdio>
#include <map>
#include <string>

#include "fibers.h"
#include "streams.h"

namespace emu {
static Kernel* kernels;
static std::string failed;  // the last kernel that did, and what it did wrong
Kernel::Kernel(const char* n, size_t size, int t, void (*r)(const void*)) : name(n), params(size), threads(t), run(r), next(kernels) { kernels = this; }

static int compute(const Work& w, int device) {
  if (w.other) {
    w.other();
    return 0;
  }
  lateProducts = device % 2;
  theGrid = {w.grid[0], w.grid[1], w.grid[2]};
  theSize = {(u32)w.threads, 1, 1};
  std::vector<u64> params((w.params.size() + 7) / 8);
  memcpy(params.data(), w.params.data(), w.params.size());
  for (u32 z = 0; z < w.grid[2]; z++)
    for (u32 y = 0; y < w.grid[1]; y++)
      for (u32 x = 0; x < w.grid[0]; x++) {
        theBlock = {x, y, z};
        if (!runBlock(w.kernel, params.data(), w.threads, w.shared)) {
          failed = std::string(w.kernel->name) + ": " + (fault ? fault : "lanes of a warp missed a meeting");
          return kLaunchFailed;
        }
      }
  return 0;
}
}  // namespace emu

using namespace emu;
constexpr size_t kMemory = 4ull << 30;  // of each

struct Allocation {
  void* base;
  size_t whole;
  int device;
};
static std::mutex allocating;
static std::map<void*, Allocation> allocations;
static std::map<void*, size_t> pinned;  // memory of the host

// owned reports whether p is memory of the thread's GPU.
static bool owned(const void* p) {
  std::lock_guard<std::mutex> lock(allocating);
  auto it = allocations.upper_bound((void*)p);
  if (it == allocations.begin()) return false;
  --it;
  return it->second.device == device && (const u8*)p < (const u8*)it->second.base + it->second.whole;
}

API cuInit(unsigned) { return 0; }
API cuDriverGetVersion(int* v) {
  *v = 13000;
  return 0;
}
API cuGetErrorName(int code, const char** s) {
  *s = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : code == 500 ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_INVALID_VALUE";
  return 0;
}
API cuGetErrorString(int code, const char** s) {
  *s = code == 719 ? emu::failed.c_str() : "of the emulated driver";
  return 0;
}
API cuDeviceGetCount(int* n) {
  *n = kDevices;
  return 0;
}
API cuDeviceGet(int* d, int n) {
  *d = n;
  return n < 0 || n >= kDevices ? 101 : 0;
}
API cuDeviceGetName(char* s, int n, int) {
  snprintf(s, n, "emulated GPU");
  return 0;
}
API cuDeviceGetAttribute(int* v, int a, int) {
  *v = a == 16 ? 4 : a == 75 ? 9 : a == 76 ? 0 : a == 97 ? kMaxShared : 1 << 20;
  return 0;
}
API cuDeviceTotalMem_v2(size_t* n, int) {
  *n = kMemory;
  return 0;
}
API cuDevicePrimaryCtxRetain(void** c, int d) {
  *c = (void*)(uintptr_t)(1 + d);
  return 0;
}
API cuDevicePrimaryCtxRelease_v2(int) { return 0; }
API cuCtxSetCurrent(void* c) {
  device = (int)(uintptr_t)c - 1;
  return 0;
}
API cuMemGetInfo_v2(size_t* free, size_t* total) {
  *free = *total = kMemory;
  return 0;
}
API cuMemAlloc_v2(void** p, size_t n) {
  if (n > kMemory) return 2;
  size_t whole = (n + 4095) / 4096 * 4096, end = (n + 255) / 256 * 256;
  if (n % 16 == 0) end = n;
  u8* base = (u8*)mmap(nullptr, whole + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return 2;
  mprotect(base + whole, 4096, PROT_NONE);
  memset(base, 0xff, whole);  // NaN: nothing is there at the start
  if (end > whole) end = whole;
  *p = base + whole - end;
  std::lock_guard<std::mutex> lock(allocating);
  allocations[*p] = {base, whole + 4096, device};
  return 0;
}
static void release(void* p) {
  std::lock_guard<std::mutex> lock(allocating);
  auto it = allocations.find(p);
  munmap(it->second.base, it->second.whole);
  allocations.erase(it);
}
static bool allocated(void* p) {
  std::lock_guard<std::mutex> lock(allocating);
  auto it = allocations.find(p);
  return it != allocations.end() && it->second.device == device;
}
API cuMemFree_v2(void* p) {
  if (!allocated(p)) return 1;
  std::lock_guard<std::recursive_mutex> lock(computing);
  finishAll(device);  // as the driver does
  release(p);
  return 0;
}
API cuMemAllocAsync(void** p, size_t n, void*) { return cuMemAlloc_v2(p, n); }
API cuMemFreeAsync(void* p, void* s) {
  if (!allocated(p)) return 1;
  Work w;
  w.other = [=] { release(p); };
  return put(s, std::move(w));
}
API cuDeviceGetDefaultMemPool(void** p, int) {
  *p = (void*)1;
  return 0;
}
API cuMemPoolSetAttribute(void*, int, void*) { return 0; }
API cuMemHostAlloc(void** p, size_t n, unsigned) {
  *p = malloc(n);
  memset(*p, 0xff, n);
  std::lock_guard<std::mutex> lock(allocating);
  pinned[*p] = n;
  return 0;
}
API cuMemFreeHost(void* p) {
  std::lock_guard<std::recursive_mutex> order(computing);
  for (int d = 0; d < kDevices; d++) finishAll(d);  // as the driver does
  std::lock_guard<std::mutex> lock(allocating);
  if (!pinned.erase(p)) return 1;
  free(p);
  return 0;
}
static bool isPinned(const void* p) {
  std::lock_guard<std::mutex> lock(allocating);
  auto it = pinned.upper_bound((void*)p);
  return it != pinned.begin() && (--it, (const u8*)p < (const u8*)it->first + it->second);
}
static Work copyWork(void* d, const void* s, size_t n) {
  Work w;
  w.copies = true;
  w.other = [=] { memcpy(d, s, n); };
  return w;
}
// Memory of the host that is not pinned has been read, or written, when the call
// returns.
API cuMemcpyHtoDAsync_v2(void* d, const void* s, size_t n, void* stream) {
  if (!owned(d)) return 1;
  Work w = copyWork(d, s, n);
  if (!isPinned(s)) {
    std::vector<u8> bytes((const u8*)s, (const u8*)s + n);
    w.other = [=] { memcpy(d, bytes.data(), n); };
  }
  return put(stream, std::move(w));
}
API cuMemcpyDtoHAsync_v2(void* d, const void* s, size_t n, void* stream) {
  if (!owned(s)) return 1;
  int code = put(stream, copyWork(d, s, n));
  return code || isPinned(d) ? code : cuStreamSynchronize(stream);
}
API cuMemcpyDtoDAsync_v2(void* d, const void* s, size_t n, void* stream) { return owned(d) && owned(s) ? put(stream, copyWork(d, s, n)) : 1; }
API cuMemsetD8Async(void* d, u8 v, size_t n, void* stream) {
  if (!owned(d)) return 1;
  Work w;
  w.copies = true;
  w.other = [=] { memset(d, v, n); };
  return put(stream, std::move(w));
}
API cuModuleLoadDataEx(void** m, const void*, unsigned, void*, void*) {
  *m = (void*)4;
  return 0;
}
API cuModuleUnload(void*) { return 0; }
API cuModuleGetFunction(const Kernel** f, void*, const char* name) {
  for (Kernel* k = emu::kernels; k; k = k->next)
    if (!strcmp(k->name, name)) {
      *f = k;
      return 0;
    }
  return 500;
}
API cuFuncSetAttribute(void*, int, int v) { return v > kMaxShared ? 1 : 0; }
API cuLaunchKernel(const Kernel* k, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 bytes, void* stream, void** params, void**) {
  if (by * bz != 1 || bx % 32 || (int)bx > k->threads || bytes > kMaxShared || !gx || !gy || !gz) return 1;
  Work w;
  w.kernel = k, w.threads = (int)bx, w.shared = (int)bytes;
  w.grid[0] = gx, w.grid[1] = gy, w.grid[2] = gz;
  w.params.assign((u8*)params[0], (u8*)params[0] + k->params);
  return put(stream, std::move(w));
}
// CUlaunchConfig, of which launches have one attribute: that they may start early.
struct LaunchConfig {
  u32 grid[3], block[3], shared;
  void* stream;
  struct {
    u32 id, pad, value;
  }* attributes;
  u32 n;
};
API cuLaunchKernelEx(const LaunchConfig* c, const Kernel* k, void** params, void**) {
  if (c->n != 1 || c->attributes->id != 6 || c->attributes->value != 1) return 1;
  return cuLaunchKernel(k, c->grid[0], c->grid[1], c->grid[2], c->block[0], c->block[1], c->block[2], c->shared, c->stream, params, nullptr);
}

#include "../src/kernels.cu"
#include "mistakes.h"
#include "blas.h"
