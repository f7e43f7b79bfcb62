// The instructions that the kernels use beyond C++. TERSE_EMU gives them on the
// CPU (emu/emu.h), so that the same kernels are tested without a GPU.
#pragma once

#ifdef TERSE_EMU
#include "emu.h"
#else

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define DEV static __device__ __forceinline__
// A kernel takes one struct by value.
#define KERNEL(name, Params, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Params p)
#define SHARED(name) extern __shared__ __align__(128) u8 name[]

DEV u32 sharedAddress(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory, past the registers.
DEV void copy16(void* dst, const void* src) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(sharedAddress(dst)), "l"(src) : "memory");
}
DEV void copyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
DEV void copyWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

DEV u32 laneShuffle(u32 x, int from) { return __shfl_sync(0xffffffffu, x, from); }
DEV u64 laneShuffle(u64 x, int from) { return __shfl_sync(0xffffffffu, x, from); }
DEV float laneShuffle(float x, int from) { return __shfl_sync(0xffffffffu, x, from); }
DEV int laneShuffle(int x, int from) { return __shfl_sync(0xffffffffu, x, from); }
DEV u32 laneXor(u32 x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEV int laneXor(int x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEV float laneXor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEV bool laneAny(bool x) { return __any_sync(0xffffffffu, x); }
DEV void warpSync() { __syncwarp(); }
DEV void blockSync() { __syncthreads(); }
// Adds 1 and gives what was there. What the block wrote before is seen by whoever
// counts later, and what they wrote by this block (after a blockSync).
DEV u32 countIn(u32* p) {
  u32 old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(old) : "l"(p) : "memory");
  return old;
}

// c += A·B, A 16x32 unsigned codes by rows, B 32x8 by columns, signed queries or
// unsigned weights.
DEV void mmaQuery(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// The same with an inner dimension of 16.
DEV void mmaQueryHalf(int (&c)[4], u32 a0, u32 a1, u32 b0) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(b0));
}
// d = A·B + c with sums c of their own, A signed and B unsigned, or both unsigned.
DEV void mmaSignedFrom(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, int c0, int c1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%10,%11,%11};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c0), "r"(c1));
}
DEV void mmaSigned(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
DEV void mmaWeightFrom(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, int c) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%10,%10,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c));
}
DEV void mmaWeight(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// c += A·B in float16 with float32 sums, A 16x16 by rows, B 16x8 by columns.
DEV void mmaHalf(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// The transpose of an 8x8 matrix of 16-bit elements, two of a row in each lane.
DEV u32 transpose8(u32 x) {
  u32 y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
// Bytes of {b,a} by the nibbles of a constant selector.
template <u32 SELECT>
DEV u32 permute(u32 a, u32 b) {
  u32 y;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "n"(SELECT));
  return y;
}
// The same by the low nibbles of a selector, up to 7.
DEV u32 permuteBy(u32 a, u32 b, u32 select) { return __byte_perm(a, b, select); }
DEV int dot4(u32 a, u32 b, int c) { return __dp4a((int)a, (int)b, c); }
DEV u32 sum4(u32 a) { return __dp4a(a, 0x01010101u, 0u); }
DEV float exp2Fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEV float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEV float asFloat(u32 x) { return __uint_as_float(x); }
DEV u32 asBits(float x) { return __float_as_uint(x); }
// float16, to nearest even.
DEV float widen(u16 h) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(h));
  return y;
}
DEV u16 narrow(float x) {
  u16 h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}
// Two float32 as float16, the first one low.
DEV u32 narrow2(float lo, float hi) {
  u32 y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}
// One rounding each, never fused.
DEV float mulRound(float a, float b) { return __fmul_rn(a, b); }
DEV float addRound(float a, float b) { return __fadd_rn(a, b); }
DEV float subRound(float a, float b) { return __fsub_rn(a, b); }
DEV float divRound(float a, float b) { return __fdiv_rn(a, b); }
DEV float sqrtRound(float a) { return __fsqrt_rn(a); }
DEV float fusedMulAdd(float a, float b, float c) { return __fmaf_rn(a, b, c); }
#endif

static constexpr float kMinusInf = -__builtin_huge_valf();

DEV float widenLow(u32 x) { return widen((u16)x); }
DEV float widenHigh(u32 x) { return widen((u16)(x >> 16)); }
DEV float larger(float a, float b) { return a > b ? a : b; }  // b if a is NaN

struct alignas(16) Quad32 {
  u32 x, y, z, w;
};
struct alignas(8) Pair32 {
  u32 x, y;
};
template <class T>
DEV T load(const void* p) {
  return *(const T*)p;
}
