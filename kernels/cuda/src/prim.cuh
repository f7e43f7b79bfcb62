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
#define SHARED(name) extern __shared__ __align__(1024) u8 name[]

DEV u32 sharedAddress(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory, past the registers.
DEV void copy16(void* dst, const void* src) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(sharedAddress(dst)), "l"(src) : "memory");
}
// The same, or zeros.
DEV void copy16Or0(void* dst, const void* src, bool some) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sharedAddress(dst)), "l"(src), "r"(some ? 16 : 0) : "memory");
}
// The same of what is read once and leaves the second-level cache before anything
// else does.
DEV u64 onlyOnce() {
  u64 policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
DEV void copy16Once(void* dst, const void* src, u64 policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(sharedAddress(dst)), "l"(src), "l"(policy) : "memory");
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
DEV double laneXor(double x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
DEV float laneXor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
// keep is x in a register: the compiler does not see through it, and so neither makes
// it anew nor writes it into instructions.
DEV u32 keep(u32 x) { return laneXor(x, 0); }
DEV bool laneAny(bool x) { return __any_sync(0xffffffffu, x); }
DEV u32 laneVotes(bool x) { return __ballot_sync(0xffffffffu, x); }
DEV void warpSync() { __syncwarp(); }
DEV void blockSync() { __syncthreads(); }
// Adds 1 and gives what was there. What the block wrote before is seen by whoever
// counts later, and what they wrote by this block (after a blockSync).
DEV u32 countIn(u32* p) {
  u32 old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(old) : "l"(p) : "memory");
  return old;
}

// Adds to shared memory, whoever else does.
template <class T>
DEV void addTo(T* p, T x) { atomicAdd(p, x); }

// c += A·B, A 16x32 unsigned codes by rows, B 32x8 by columns, signed queries or
// unsigned weights. Sums in and out are apart: those that begin as zero then take
// no instructions.
DEV void mmaQuery(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  int d[4];
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%10,%11,%12,%13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
#pragma unroll
  for (int e = 0; e < 4; e++) c[e] = d[e];
}
// The same with an inner dimension of 16.
DEV void mmaQueryHalf(int (&c)[4], u32 a0, u32 a1, u32 b0) {
  int d[4];
  asm("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0,%1,%2,%3},{%4,%5},{%6},{%7,%8,%9,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(b0), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
#pragma unroll
  for (int e = 0; e < 4; e++) c[e] = d[e];
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
// The same in bfloat16.
DEV void mmaBrain(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
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
DEV u32 dot4Whole(u32 a, u32 b, u32 c) { return __dp4a(a, b, c); }
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
// Kernels that are launched early (Shape.Early) run beside the end of the kernel
// before them: nothing that kernels have written is read, and nothing written, before
// waitBefore, which waits until all of them are done. letNextStart says that the
// next kernel may come when all blocks have said so.
#ifdef TERSE_HOPPER
DEV void waitBefore() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
DEV void letNextStart() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
// Asks for n bytes, which will be read soon; both are multiples of 16.
DEV void fetchBytes(const void* p, u32 n) { asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(n) : "memory"); }
#else
DEV void fetchBytes(const void*, u32) {}
DEV void waitBefore() {}
DEV void letNextStart() {}
#endif
// Asks for the line of an address, which will be read soon.
DEV void fetchLine(const void* p) { asm volatile("prefetch.global.L1 [%0];" ::"l"(p)); }
#ifdef TERSE_HOPPER
// Products of a warpgroup's four warps, which run beside them (sm_90a): what they
// read of shared memory was made known by operandFence, their sums are not touched
// before groupWait.
DEV void operandFence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEV void groupFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEV void groupCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// holdSums keeps the compiler from moving what touches a product's sums.
DEV void holdSums(int (&c)[32]) {
#pragma unroll
  for (int i = 0; i < 32; i++) asm volatile("" : "+r"(c[i])::"memory");
}
DEV void holdSums(int (&c)[16]) {
#pragma unroll
  for (int i = 0; i < 16; i++) asm volatile("" : "+r"(c[i])::"memory");
}
DEV void holdSums(float (&c)[32]) {
#pragma unroll
  for (int i = 0; i < 32; i++) asm volatile("" : "+f"(c[i])::"memory");
}
template <int N>
DEV void holdSums(float (&c)[N][4]) {
#pragma unroll
  for (int i = 0; i < 4 * N; i++) asm volatile("" : "+f"(c[i / 4][i % 4])::"memory");
}
template <int N>
DEV void groupFence(float (&c)[N][4]) {
  holdSums(c);
  groupFence();
}
// groupWaitFor waits for all that was committed but the last N groups; its operands
// are the sums of what it waits for.
template <int N, class... T>
DEV void groupWaitFor(T&... sums) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
  (holdSums(sums), ...);
}
template <class... T>
DEV void groupWait(T&... sums) {
  groupWaitFor<0>(sums...);
}
// groupOperand names rows of 128 bytes whose 16-byte pieces are turned by the row,
// from a multiple of eight rows on.
using GroupOperand = u64;
DEV GroupOperand groupOperand(const u8* p) { return (u64)(sharedAddress(p) >> 4) | (u64)1 << 16 | (u64)64 << 32 | (u64)1 << 62; }
DEV GroupOperand keepOperand(GroupOperand o) { return (u64)keep((u32)o) | o >> 32 << 32; }
// groupAlong is an operand that begins so many bytes along the rows.
DEV u64 groupAlong(u64 operand, int bytes) { return operand >> 32 << 32 | ((u32)operand + (u32)(bytes >> 4)); }
// groupColumns names an operand by columns: a row is 64 columns of one number of the
// inner dimension; the next 64 columns are so many bytes on, a multiple of 1,024.
DEV u64 groupColumns(const u8* p, u32 next) { return (u64)(sharedAddress(p) >> 4) | (u64)(next >> 4) << 16 | (u64)64 << 32 | (u64)1 << 62; }
// c = A·B, or c += A·B with MORE; A 64 rows of 32 signed codes in the lanes' registers,
// B 64 rows of 32 of them.
template <bool MORE>
DEV void groupSigned(int (&c)[32], const u32 (&a)[4], u64 b) {
  asm volatile("{.reg .pred p; setp.ne.b32 p,%37,0; wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},{%32,%33,%34,%35},%36,p;}"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]), "+r"(c[4]), "+r"(c[5]), "+r"(c[6]), "+r"(c[7]), "+r"(c[8]), "+r"(c[9]), "+r"(c[10]), "+r"(c[11]), "+r"(c[12]), "+r"(c[13]), "+r"(c[14]), "+r"(c[15]), "+r"(c[16]), "+r"(c[17]), "+r"(c[18]), "+r"(c[19]), "+r"(c[20]), "+r"(c[21]), "+r"(c[22]), "+r"(c[23]), "+r"(c[24]), "+r"(c[25]), "+r"(c[26]), "+r"(c[27]), "+r"(c[28]), "+r"(c[29]), "+r"(c[30]), "+r"(c[31])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(MORE));
}
// The same, A in shared memory.
template <bool MORE>
DEV void groupSigned(int (&c)[32], u64 a, u64 b) {
  asm volatile("{.reg .pred p; setp.ne.b32 p,%34,0; wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},%32,%33,p;}"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]), "+r"(c[4]), "+r"(c[5]), "+r"(c[6]), "+r"(c[7]), "+r"(c[8]), "+r"(c[9]), "+r"(c[10]), "+r"(c[11]), "+r"(c[12]), "+r"(c[13]), "+r"(c[14]), "+r"(c[15]), "+r"(c[16]), "+r"(c[17]), "+r"(c[18]), "+r"(c[19]), "+r"(c[20]), "+r"(c[21]), "+r"(c[22]), "+r"(c[23]), "+r"(c[24]), "+r"(c[25]), "+r"(c[26]), "+r"(c[27]), "+r"(c[28]), "+r"(c[29]), "+r"(c[30]), "+r"(c[31])
               : "l"(a), "l"(b), "n"(MORE));
}
// The same of 32 rows of B.
template <bool MORE>
DEV void groupSigned(int (&c)[16], u64 a, u64 b) {
  asm volatile("{.reg .pred p; setp.ne.b32 p,%18,0; wgmma.mma_async.sync.aligned.m64n32k32.s32.s8.s8 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15},%16,%17,p;}"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3]), "+r"(c[4]), "+r"(c[5]), "+r"(c[6]), "+r"(c[7]), "+r"(c[8]), "+r"(c[9]), "+r"(c[10]), "+r"(c[11]), "+r"(c[12]), "+r"(c[13]), "+r"(c[14]), "+r"(c[15])
               : "l"(a), "l"(b), "n"(MORE));
}
// The same of float16, 16 deep.
template <bool MORE>
DEV void groupHalf(float (&c)[32], u64 a, u64 b) {
  asm volatile("{.reg .pred p; setp.ne.b32 p,%34,0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},%32,%33,p,1,1,0,0;}"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
               : "l"(a), "l"(b), "n"(MORE));
}
// The same, A in the lanes' registers.
template <bool MORE>
DEV void groupHalf(float (&c)[32], const u32 (&a)[4], u64 b) {
  asm volatile("{.reg .pred p; setp.ne.b32 p,%37,0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},{%32,%33,%34,%35},%36,p,1,1,0;}"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(MORE));
}
// The same with 128 columns.
template <bool MORE>
DEV void groupHalf(float (&c)[16][4], u64 a, u64 b) {
  asm volatile("{.reg .pred p; setp.ne.b32 p,%66,0; wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},%64,%65,p,1,1,0,0;}"
               : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3]), "+f"(c[8][0]), "+f"(c[8][1]), "+f"(c[8][2]), "+f"(c[8][3]), "+f"(c[9][0]), "+f"(c[9][1]), "+f"(c[9][2]), "+f"(c[9][3]), "+f"(c[10][0]), "+f"(c[10][1]), "+f"(c[10][2]), "+f"(c[10][3]), "+f"(c[11][0]), "+f"(c[11][1]), "+f"(c[11][2]), "+f"(c[11][3]), "+f"(c[12][0]), "+f"(c[12][1]), "+f"(c[12][2]), "+f"(c[12][3]), "+f"(c[13][0]), "+f"(c[13][1]), "+f"(c[13][2]), "+f"(c[13][3]), "+f"(c[14][0]), "+f"(c[14][1]), "+f"(c[14][2]), "+f"(c[14][3]), "+f"(c[15][0]), "+f"(c[15][1]), "+f"(c[15][2]), "+f"(c[15][3])
               : "l"(a), "l"(b), "n"(MORE));
}
// c += A·B in float16, A 64 rows of 16 in the lanes' registers, B 128 rows of 16, or
// 128 columns.
template <bool COLUMNS>
DEV void groupWeigh(float (&c)[16][4], const u32 (&a)[4], u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},{%64,%65,%66,%67},%68,1,1,1,%69;"
               : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3]), "+f"(c[8][0]), "+f"(c[8][1]), "+f"(c[8][2]), "+f"(c[8][3]), "+f"(c[9][0]), "+f"(c[9][1]), "+f"(c[9][2]), "+f"(c[9][3]), "+f"(c[10][0]), "+f"(c[10][1]), "+f"(c[10][2]), "+f"(c[10][3]), "+f"(c[11][0]), "+f"(c[11][1]), "+f"(c[11][2]), "+f"(c[11][3]), "+f"(c[12][0]), "+f"(c[12][1]), "+f"(c[12][2]), "+f"(c[12][3]), "+f"(c[13][0]), "+f"(c[13][1]), "+f"(c[13][2]), "+f"(c[13][3]), "+f"(c[14][0]), "+f"(c[14][1]), "+f"(c[14][2]), "+f"(c[14][3]), "+f"(c[15][0]), "+f"(c[15][1]), "+f"(c[15][2]), "+f"(c[15][3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(COLUMNS));
}
// The same with 64 columns.
template <bool COLUMNS>
DEV void groupWeigh(float (&c)[8][4], const u32 (&a)[4], u64 b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31},{%32,%33,%34,%35},%36,1,1,1,%37;"
               : "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]), "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), "+f"(c[7][2]), "+f"(c[7][3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(COLUMNS));
}
// Barriers in shared memory (mbarrier): a phase ends when so many have arrived and so
// many bytes of bulk copies have come; whoever waits names the phase's parity, 0 first.
// barrierFence follows barrierInit, and a blockSync that.
DEV void barrierInit(u64* b, u32 arrivals) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(sharedAddress(b)), "r"(arrivals) : "memory"); }
DEV void barrierFence() { asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory"); }
DEV void barrierArrive(u64* b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(sharedAddress(b)) : "memory"); }
// Arrives, and makes the phase last until n more bytes have come.
DEV void barrierExpect(u64* b, u32 n) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sharedAddress(b)), "r"(n) : "memory"); }
DEV void barrierWait(u64* b, u32 parity) {
  asm volatile("{.reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra done; bra again; done:}" ::"r"(sharedAddress(b)), "r"(parity) : "memory");
}
// Whether a phase has ended, without waiting for it.
DEV bool barrierCame(u64* b, u32 parity) {
  u32 y;
  asm volatile("{.reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}" : "=r"(y) : "r"(sharedAddress(b)), "r"(parity) : "memory");
  return y;
}
// n bytes from global to shared memory by one thread; n and both addresses are
// multiples of 16. b gets to know when they have come.
DEV void copyBulk(void* dst, const void* src, u32 n, u64* b) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(sharedAddress(dst)), "l"(src), "r"(n), "r"(sharedAddress(b)) : "memory");
}
// Barriers of some of the block's warps: n threads in all, of which those that arrive
// do not wait. blockSync is barrier 0.
DEV void someSync(int barrier, int n) { asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(n) : "memory"); }
DEV void someArrive(int barrier, int n) { asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(n) : "memory"); }
// A warpgroup's threads take or give up registers: N for each from now on.
template <int N>
DEV void moreRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
DEV void fewerRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
#endif
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
// The same as bfloat16.
DEV u32 narrowBrain2(float lo, float hi) {
  u32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}
// Pairs of float16: the smaller and the larger ones, -0 being below 0; sums, products
// and a·b + c, each rounded once.
DEV u32 minHalves(u32 a, u32 b) {
  u32 y;
  asm("min.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}
DEV u32 maxHalves(u32 a, u32 b) {
  u32 y;
  asm("max.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}
DEV u32 addHalves(u32 a, u32 b) {
  u32 y;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}
DEV u32 mulHalves(u32 a, u32 b) {
  u32 y;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}
DEV u32 mulAddHalves(u32 a, u32 b, u32 c) {
  u32 y;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(c));
  return y;
}
// One rounding each, never fused.
DEV float mulRound(float a, float b) { return __fmul_rn(a, b); }
DEV float addRound(float a, float b) { return __fadd_rn(a, b); }
DEV float subRound(float a, float b) { return __fsub_rn(a, b); }
DEV float divRound(float a, float b) { return __fdiv_rn(a, b); }
DEV float sqrtRound(float a) { return __fsqrt_rn(a); }
DEV float fusedMulAdd(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEV float fusedDown(float a, float b, float c) { return __fmaf_rd(a, b, c); }  // towards -infinity
// a + b kept within 0 and 1; 0 for what is no number.
DEV float addSaturate(float a, float b) {
  float y;
  asm("add.rn.sat.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
#endif

// Whether at a barrier in shared memory every thread arrives itself, and none for
// others whom it has met before: racecheck knows only what those who arrive have done
// (check.sh). A prompt takes a quarter to a third longer then.
#ifdef TERSE_EACH_ARRIVES
static constexpr bool kEachArrives = true;
#else
static constexpr bool kEachArrives = false;
#endif

static constexpr float kMinusInf = -__builtin_huge_valf();

DEV float widenLow(u32 x) { return widen((u16)x); }
DEV float widenHigh(u32 x) { return widen((u16)(x >> 16)); }
DEV float larger(float a, float b) { return fmaxf(a, b); }  // the other one if one is NaN

struct alignas(16) Quad32 {
  u32 x, y, z, w;
};
struct alignas(8) Pair32 {
  u32 x, y;
};
#ifndef TERSE_EMU
// 16 bytes of global memory, asked for here: the compiler puts off other loads
// until they are used, behind branches that wait for memory.
DEV Quad32 loadNow(const Quad32* p) {
  Quad32 v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
}
#else
DEV Quad32 loadNow(const Quad32* p) { return *p; }
#endif
template <class T>
DEV T load(const void* p) {
  return *(const T*)p;
}
