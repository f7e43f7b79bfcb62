// The rest of a layer. The residual stream, queries, keys and values are float32;
// what matrix products read is float16 or bfloat16, as the weights are.
#pragma once
#include "prim.cuh"

static constexpr int kLayerThreads = 256;

DEV u16 narrowTo(float x, int brain) {
  if (!brain) return narrow(x > 65504 ? 65504 : x < -65504 ? -65504 : x);
  u32 b = asBits(x);
  if (x != x) return (u16)(b >> 16 | 64);
  return (u16)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

static constexpr int kRowThreads = 1024;  // of kernels that take a block for a row
static constexpr int kRowEach = 16;         // most numbers of a norm's row that a thread has

// rowSum adds x over a block of a row; every thread gets the sum, in one fixed
// order.
DEV float rowSum(float x, float* shared) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) x += laneXor(x, mask);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  blockSync();
  x = shared[threadIdx.x % 32];
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) x += laneXor(x, mask);
  return x;
}

struct NormParams {
  float* x;            // [row][dim], the residual stream
  const float* add;    // [row][dim], added to it first; null: none
  const float* weight; // [dim]
  u16* out;            // [row][dim]
  const int* rows;     // the rows of x to take; null: all in order
  int dim, brain;
  float eps;
};

// One block a row: x += add; out = x / sqrt(mean(x²) + eps) · weight. All is read
// before anything is written: the time of a row is the memory's latency.
KERNEL(rms_norm, NormParams, kRowThreads, 1) {
  SHARED(scratch);
  u64 row = (u64)(p.rows ? p.rows[blockIdx.x] : (int)blockIdx.x) * p.dim;
  float v[kRowEach], more[kRowEach], weight[kRowEach], sum = 0;
#pragma unroll
  for (int j = 0; j < kRowEach; j++) {
    int i = threadIdx.x + kRowThreads * j;
    v[j] = i < p.dim ? p.x[row + i] : 0;
    more[j] = i < p.dim && p.add ? p.add[row + i] : 0;
    weight[j] = i < p.dim ? p.weight[i] : 0;
  }
#pragma unroll
  for (int j = 0; j < kRowEach; j++) {
    int i = threadIdx.x + kRowThreads * j;
    v[j] += more[j];
    if (i < p.dim && p.add) p.x[row + i] = v[j];
    sum += v[j] * v[j];
  }
  float scale = 1 / sqrtRound(rowSum(sum, (float*)scratch) / (float)p.dim + p.eps);
#pragma unroll
  for (int j = 0; j < kRowEach; j++) {
    int i = threadIdx.x + kRowThreads * j;
    if (i < p.dim) p.out[(u64)blockIdx.x * p.dim + i] = narrowTo(v[j] * scale * weight[j], p.brain);
  }
}

struct GateParams {
  const float *gate, *up;  // [row][dim] with strides
  u16* out;                // [row][dim]
  int dim, stride, brain, n;
};

// out = gate / (1 + e^-gate) · up
KERNEL(swiglu, GateParams, kLayerThreads, 4) {
  int i = blockIdx.x * kLayerThreads + threadIdx.x;
  if (i >= p.n) return;
  u64 at = (u64)(i / p.dim) * p.stride + i % p.dim;
  float g = p.gate[at];
  p.out[i] = narrowTo(g / (1 + exp2Fast(-1.44269504f * g)) * p.up[at], p.brain);
}

struct EmbedParams {
  const void* table;  // [vocabulary][dim]
  const int* ids;     // [row]
  float* out;         // [row][dim]
  int dim, kind;      // 0: float16, 1: bfloat16, 2: float32
};

KERNEL(embed, EmbedParams, kLayerThreads, 4) {
  u64 from = (u64)p.ids[blockIdx.x] * p.dim, to = (u64)blockIdx.x * p.dim;
  for (int i = threadIdx.x; i < p.dim; i += kLayerThreads) {
    float x;
    if (p.kind == 2) {
      x = ((const float*)p.table)[from + i];
    } else {
      u16 h = ((const u16*)p.table)[from + i];
      x = p.kind == 1 ? asFloat((u32)h << 16) : widen(h);
    }
    p.out[to + i] = x;
  }
}

struct ArgmaxParams {
  const float* x;  // [row][n]
  int* out;        // [row]
  int n;
};

// The first of the largest; NaN never is.
KERNEL(argmax, ArgmaxParams, kRowThreads, 1) {
  SHARED(scratch);
  waitBefore();
  const float* x = p.x + (u64)blockIdx.x * p.n;
  float best = kMinusInf;
  int at = p.n;
  auto take = [&](u32 bits, int i) {
    float v = asFloat(bits);
    if (v > best || (at == p.n && v == best)) best = v, at = i;
  };
  int fours = p.n % 4 == 0 ? p.n / 4 : 0;  // rows begin at multiples of 16 bytes
#pragma unroll 8
  for (int i = threadIdx.x; i < fours; i += kRowThreads) {
    Quad32 v = load<Quad32>(x + 4 * i);
    take(v.x, 4 * i), take(v.y, 4 * i + 1), take(v.z, 4 * i + 2), take(v.w, 4 * i + 3);
  }
  if (fours == 0)
    for (int i = threadIdx.x; i < p.n; i += kRowThreads) take(asBits(x[i]), i);
  float* values = (float*)scratch;
  int* places = (int*)(values + kRowThreads);
  values[threadIdx.x] = best, places[threadIdx.x] = at;
  blockSync();
  for (int half = kRowThreads / 2; half > 0; half /= 2) {
    if ((int)threadIdx.x < half) {
      float other = values[threadIdx.x + half];
      int place = places[threadIdx.x + half];
      if (other > values[threadIdx.x] || (other == values[threadIdx.x] && place < places[threadIdx.x])) values[threadIdx.x] = other, places[threadIdx.x] = place;
    }
    blockSync();
  }
  if (threadIdx.x == 0) p.out[blockIdx.x] = places[0] < p.n ? places[0] : 0;
}
