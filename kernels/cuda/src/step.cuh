// What stands between a layer's products and its attention: queries, keys and
// values on their way in, and outputs on their way out.
#pragma once
#include "encode.cuh"
#include "layer.cuh"

static constexpr int kTurnThreads = 256;  // a warp for each head of a row

struct TurnParams {
  const float* x;              // [row][heads + 2·kvHeads][dim]: queries, keys, values, as one product gives them
  const float* bias;           // [heads + 2·kvHeads][dim]; null: none
  const float *qNorm, *kNorm;  // [dim] of QK-norm; null: none
  const float *cos, *sin;      // [position][pairs]
  const int* positions;        // [row]; negative: a row of padding
  const float* signs;          // [dim] of K's rotation, which queries share; null: none
  float *q, *k, *v;            // [row][heads or kvHeads][dim]
  int rows, heads, kvHeads, pairs, interleaved;
  float eps, scale;  // scale: of the Hadamard matrix
  int pad;
};

// A head's bias, norm and rotary embedding; queries go on into the cache's basis.
template <int D>
DEV void turn(const TurnParams& p) {
  constexpr int kEach = D / 32;
  SHARED(memory);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, all = p.heads + 2 * p.kvHeads;
  int i = blockIdx.x * (kTurnThreads / 32) + warp;
  if (i >= p.rows * all) return;
  int row = i / all, head = i % all, position = max(p.positions[row], 0);
  float* head_ = (float*)memory + warp * D;
  float v[kEach];
#pragma unroll
  for (int j = 0; j < kEach; j++) {
    v[j] = p.x[(u64)i * D + lane + 32 * j];
    if (p.bias) v[j] += p.bias[head * D + lane + 32 * j];
  }
  bool value = head >= p.heads + p.kvHeads, query = head < p.heads;
  const float* weight = query ? p.qNorm : p.kNorm;
  if (!value) {
    if (weight) {
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kEach; j++) sum += v[j] * v[j];
#pragma unroll
      for (int mask = 16; mask > 0; mask /= 2) sum += laneXor(sum, mask);
      float scale = 1 / sqrtRound(sum / (float)D + p.eps);
#pragma unroll
      for (int j = 0; j < kEach; j++) v[j] = v[j] * scale * weight[lane + 32 * j];
    }
#pragma unroll
    for (int j = 0; j < kEach; j++) head_[lane + 32 * j] = v[j];
    warpSync();
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      int c = lane + 32 * j;
      if (c >= 2 * p.pairs) continue;
      int pair = p.interleaved ? c / 2 : c % p.pairs;
      bool second = p.interleaved ? c % 2 == 1 : c >= p.pairs;
      float other = head_[p.interleaved ? c ^ 1 : second ? c - p.pairs : c + p.pairs];
      float cosine = p.cos[(u64)position * p.pairs + pair], sine = p.sin[(u64)position * p.pairs + pair];
      v[j] = second ? v[j] * cosine + other * sine : v[j] * cosine - other * sine;
    }
  }
  if (query && p.signs) {
#pragma unroll
    for (int j = 0; j < kEach; j++) v[j] *= p.signs[lane + 32 * j];
    hadamard(v, lane, p.scale);
  }
  float* to = query ? p.q + ((u64)row * p.heads + head) * D
              : value ? p.v + ((u64)row * p.kvHeads + head - p.heads - p.kvHeads) * D
                      : p.k + ((u64)row * p.kvHeads + head - p.heads) * D;
#pragma unroll
  for (int j = 0; j < kEach; j++) to[lane + 32 * j] = v[j];
}

KERNEL(turn_64, TurnParams, kTurnThreads, 4) { turn<64>(p); }
KERNEL(turn_128, TurnParams, kTurnThreads, 4) { turn<128>(p); }

struct LeaveParams {
  const float* x;      // [row][head][dim], in V's basis
  const float* signs;  // [dim] of V's rotation; null: none
  const float* mean;   // [kv head][dim]; null: none
  u16* out;            // [row][head][dim]
  int n, heads, group, brain;  // n: rows · heads
  float scale;                 // of the Hadamard matrix
  int pad;
};

// Attention's outputs out of V's basis, as the next product reads them.
template <int D>
DEV void leave(const LeaveParams& p) {
  constexpr int kEach = D / 32;
  int lane = threadIdx.x % 32, i = blockIdx.x * (kTurnThreads / 32) + threadIdx.x / 32;
  if (i >= p.n) return;
  float v[kEach];
#pragma unroll
  for (int j = 0; j < kEach; j++) v[j] = p.x[(u64)i * D + lane + 32 * j];
  if (p.signs) {
    hadamard(v, lane, p.scale);
#pragma unroll
    for (int j = 0; j < kEach; j++) v[j] *= p.signs[lane + 32 * j];
  }
#pragma unroll
  for (int j = 0; j < kEach; j++) {
    if (p.mean) v[j] += p.mean[i % p.heads / p.group * D + lane + 32 * j];
    p.out[(u64)i * D + lane + 32 * j] = narrowTo(v[j], p.brain);
  }
}

KERNEL(leave_64, LeaveParams, kTurnThreads, 4) { leave<64>(p); }
KERNEL(leave_128, LeaveParams, kTurnThreads, 4) { leave<128>(p); }

struct BiasParams {
  float* x;  // [row][dim], in place
  const float* bias;
  int dim, n;  // n: rows · dim
};

KERNEL(add_bias, BiasParams, kLayerThreads, 4) {
  int i = blockIdx.x * kLayerThreads + threadIdx.x;
  if (i < p.n) p.x[i] += p.bias[i % p.dim];
}
