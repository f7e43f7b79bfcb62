// The GPU's instructions on the CPU: each thread of a block is a fiber, and each
// warp-wide instruction a meeting of 32 of them. Slow and exact enough for tests.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEV static inline
#define KERNEL(name, Params, threads, blocks)                                                          \
  static void name(const Params& p);                                                                   \
  static emu::Kernel name##Kernel{#name, sizeof(Params), threads, [](const void* a) { name(*(const Params*)a); }}; \
  static void name(const Params& p)
#define SHARED(name) u8* name = emu::shared()
#define __restrict__

namespace emu {
struct Kernel {
  Kernel(const char* name, size_t params, int threads, void (*run)(const void*));
  const char* name;
  size_t params;
  int threads;
  void (*run)(const void*);
  Kernel* next;
};
struct Index {
  u32 x, y, z;
};
struct Fiber;
extern Fiber* current;
extern Index theThread, theBlock, theGrid, theSize;
u8* shared();
// meet deposits n bytes of a lane's operand, waits for the other 31, and gives
// their operands.
struct alignas(16) Operand {
  u8 b[48];
};
const Operand* meet(const void* operand, size_t n);
void meetBlock();
int lane();
void startCopy(void* dst, const void* src);
void commitCopies();
void waitCopies(int n);  // for all groups but the last n
}  // namespace emu

#define threadIdx emu::theThread
#define blockIdx emu::theBlock
#define gridDim emu::theGrid
#define blockDim emu::theSize

DEV void copy16(void* dst, const void* src) { emu::startCopy(dst, src); }
DEV void copy16Or0(void* dst, const void* src, bool some) { emu::startCopy(dst, some ? src : nullptr); }
DEV u64 onlyOnce() { return 0; }
DEV void copy16Once(void* dst, const void* src, u64) { copy16(dst, src); }
DEV void copyCommit() { emu::commitCopies(); }
template <int N>
DEV void copyWait() {
  emu::waitCopies(N);
}

template <class T>
DEV T laneShuffle(T x, int from) {
  T y;
  memcpy(&y, emu::meet(&x, sizeof x)[from & 31].b, sizeof y);
  return y;
}
template <class T>
DEV T laneXor(T x, int mask) {
  return laneShuffle(x, emu::lane() ^ mask);
}
DEV bool laneAny(bool x) {
  const emu::Operand* o = emu::meet(&x, sizeof x);
  for (int i = 0; i < 32; i++)
    if (o[i].b[0]) return true;
  return false;
}
DEV u32 laneVotes(bool x) {
  const emu::Operand* o = emu::meet(&x, sizeof x);
  u32 votes = 0;
  for (int i = 0; i < 32; i++) votes |= (u32)o[i].b[0] << i;
  return votes;
}
DEV void warpSync() {
  int x = 0;
  emu::meet(&x, sizeof x);
}
DEV void blockSync() { emu::meetBlock(); }
DEV u32 countIn(u32* p) { return (*p)++; }
template <class T>
DEV void addTo(T* p, T x) { *p += x; }

#define TERSE_HOPPER
DEV void waitBefore() {}
DEV void letNextStart() {}
// What is asked for must be there.
DEV void fetchLine(const void* p) { (void)*(const volatile u8*)p; }
DEV void fetchBytes(const void* p, u32 n) {
  for (u32 i = 0; i < n; i += 16) fetchLine((const u8*)p + i);
}

template <class A, class B>
DEV void mmaBytes(int (&c)[4], const u32 (&ops)[6]) {
  const emu::Operand* o = emu::meet(ops, sizeof ops);
  int l = emu::lane(), g = l / 4, q = l % 4;
  for (int e = 0; e < 4; e++) {
    int row = g + 8 * (e / 2), col = 2 * q + e % 2, sum = 0;
    for (int k = 0; k < 32; k++) {
      const u8* a = o[row % 8 * 4 + k % 16 / 4].b + 4 * (row / 8 + 2 * (k / 16));
      const u8* b = o[col * 4 + k % 16 / 4].b + 16 + 4 * (k / 16);
      sum += (int)(A)a[k % 4] * (int)(B)b[k % 4];
    }
    c[e] += sum;
  }
}
DEV void mmaQuery(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  mmaBytes<u8, signed char>(c, {a0, a1, a2, a3, b0, b1});
}
DEV void mmaQueryHalf(int (&c)[4], u32 a0, u32 a1, u32 b0) { mmaQuery(c, a0, a1, 0, 0, b0, 0); }
DEV void mmaSigned(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  mmaBytes<signed char, u8>(c, {a0, a1, a2, a3, b0, b1});
}
DEV void mmaSignedFrom(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, int c0, int c1) {
  d[0] = d[1] = c0, d[2] = d[3] = c1;
  mmaSigned(d, a0, a1, a2, a3, b0, b1);
}
DEV void mmaWeight(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  mmaBytes<u8, u8>(c, {a0, a1, a2, a3, b0, b1});
}
DEV void mmaWeightFrom(int (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1, int c) {
  d[0] = d[1] = d[2] = d[3] = c;
  mmaWeight(d, a0, a1, a2, a3, b0, b1);
}
DEV u32 keep(u32 x) { return x; }
DEV float asFloat(u32 x) {
  float f;
  memcpy(&f, &x, 4);
  return f;
}
DEV u32 asBits(float f) {
  u32 x;
  memcpy(&x, &f, 4);
  return x;
}
DEV float widen(u16 h) {
  u32 size = (u32)(h & 0x7fff) << 13, sign = (u32)(h & 0x8000) << 16;
  if (size >= 0x7c00u << 13) return asFloat(sign | (size + (112u << 23)) | 0x7f800000);
  return asFloat(asBits(asFloat(size) * 0x1p112f) | sign);  // exact, of small ones too
}
DEV u16 narrow(float x) {
  _Float16 f = (_Float16)x;
  u16 h;
  memcpy(&h, &f, 2);
  return h;
}
DEV u32 narrow2(float lo, float hi) { return (u32)narrow(lo) | (u32)narrow(hi) << 16; }
DEV u32 narrowBrain(float x) {  // as Hopper does: what is no number is 0x7fff
  u32 b = asBits(x);
  return x != x ? 0x7fff : (b + 0x7fff + (b >> 16 & 1)) >> 16;
}
DEV u32 narrowBrain2(float lo, float hi) { return narrowBrain(lo) | narrowBrain(hi) << 16; }
template <class F>
DEV u32 halves(u32 a, u32 b, u32 c, F f) {
  u32 y = 0;
  for (int i = 0; i < 32; i += 16) y |= (u32)f((u16)(a >> i), (u16)(b >> i), (u16)(c >> i)) << i;
  return y;
}
DEV bool belowHalf(u16 a, u16 b) { return widen(a) < widen(b) || (widen(a) == widen(b) && a >> 15 > b >> 15); }
DEV u32 minHalves(u32 a, u32 b) {
  return halves(a, b, 0, [](u16 x, u16 y, u16) { return belowHalf(y, x) ? y : x; });
}
DEV u32 maxHalves(u32 a, u32 b) {
  return halves(a, b, 0, [](u16 x, u16 y, u16) { return belowHalf(x, y) ? y : x; });
}
// The kernels' sums of products are exact in double, so that this rounds once.
DEV u32 mulAddHalves(u32 a, u32 b, u32 c) {
  return halves(a, b, c, [](u16 x, u16 y, u16 z) {
    _Float16 f = (_Float16)((double)widen(x) * widen(y) + widen(z));
    u16 h;
    memcpy(&h, &f, 2);
    return h;
  });
}
DEV float widenBrain(u16 h) { return asFloat((u32)h << 16); }
DEV u32 addHalves(u32 a, u32 b) { return mulAddHalves(a, 0x3c003c00, b); }
DEV u32 mulHalves(u32 a, u32 b) { return mulAddHalves(a, b, 0x80008000); }
template <float (*WIDEN)(u16)>
DEV void mmaSixteen(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  u32 ops[6] = {a0, a1, a2, a3, b0, b1};
  const emu::Operand* o = emu::meet(ops, sizeof ops);
  int l = emu::lane(), g = l / 4, q = l % 4;
  for (int e = 0; e < 4; e++) {
    int row = g + 8 * (e / 2), col = 2 * q + e % 2;
    float sum = 0;
    for (int k = 0; k < 16; k++) {
      u16 a, b;
      memcpy(&a, o[row % 8 * 4 + k % 8 / 2].b + 4 * (row / 8 + 2 * (k / 8)) + 2 * (k % 2), 2);
      memcpy(&b, o[col * 4 + k % 8 / 2].b + 16 + 4 * (k / 8) + 2 * (k % 2), 2);
      sum += WIDEN(a) * WIDEN(b);
    }
    c[e] += sum;
  }
}
DEV void mmaHalf(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) { mmaSixteen<widen>(c, a0, a1, a2, a3, b0, b1); }
DEV void mmaBrain(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) { mmaSixteen<widenBrain>(c, a0, a1, a2, a3, b0, b1); }
DEV u32 transpose8(u32 x) {
  const emu::Operand* o = emu::meet(&x, sizeof x);
  int l = emu::lane(), row = l / 4, q = l % 4;
  u16 e[2];
  for (int i = 0; i < 2; i++) memcpy(&e[i], o[(2 * q + i) * 4 + row / 2].b + 2 * (row % 2), 2);
  return (u32)e[0] | (u32)e[1] << 16;
}
DEV u32 permuteBy(u32 a, u32 b, u32 select) {
  u64 both = (u64)b << 32 | a;
  u32 y = 0;
  for (int i = 0; i < 4; i++) y |= (u32)(both >> 8 * (select >> 4 * i & 7) & 255) << 8 * i;
  return y;
}
template <u32 SELECT>
DEV u32 permute(u32 a, u32 b) {
  return permuteBy(a, b, SELECT);
}
DEV int dot4(u32 a, u32 b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
  return c;
}
DEV u32 dot4Whole(u32 a, u32 b, u32 c) {
  for (int i = 0; i < 4; i++) c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
  return c;
}
DEV u32 sum4(u32 a) { return (a & 255) + (a >> 8 & 255) + (a >> 16 & 255) + (a >> 24); }
DEV float exp2Fast(float x) { return exp2f(x); }
DEV float reciprocal(float x) { return 1 / x; }
DEV float mulRound(float a, float b) { return a * b; }
DEV float addRound(float a, float b) { return a + b; }
DEV float subRound(float a, float b) { return a - b; }
DEV float divRound(float a, float b) { return a / b; }
DEV float sqrtRound(float a) { return sqrtf(a); }
DEV float fusedMulAdd(float a, float b, float c) { return fmaf(a, b, c); }
// Towards -infinity: the exact sum is compared with the nearest float32.
DEV float fusedDown(float a, float b, float c) {
  float y = fmaf(a, b, c);
  return (double)a * b < (double)y - c ? nextafterf(y, -HUGE_VALF) : y;
}
DEV float addSaturate(float a, float b) {
  float y = a + b;
  return y > 1 ? 1 : y > 0 ? y : 0;
}
DEV int __float2int_rn(float x) { return (int)lrintf(x); }
DEV float __int2float_rn(int x) { return (float)x; }
DEV int __popcll(u64 x) { return __builtin_popcountll(x); }
template <class T>
DEV T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
DEV T max(T a, T b) {
  return a < b ? b : a;
}
#include "hopper.h"
